"""The whole graph through the real tools, small: DVC starts stages, stages start Ray, Ray starts DeepSpeed workers."""

import hashlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stages_run_by(workplace: Workplace, *command: str, **environment: str) -> set[str]:
    printed = workplace.run(*command, **environment)
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}


@pytest.mark.timeout(1500)
def test_the_graph_runs_records_and_repeats(workplace: Workplace, shared_ray: dict[str, str]) -> None:
    workplace.run("git", "init", "-q")
    workplace.run("dvc", "init", "-q")
    workplace.run("python", "-m", "pipelines.shared_ray", "--", "dvc", "repro")
    runs = workplace.folder / "runs" / "sample"

    pose = json.loads((runs / "evaluate" / "wholebody" / "metrics.json").read_text())
    assert {"body", "foot", "face", "lefthand", "righthand", "wholebody", "oks", "baseline"} <= set(pose)
    classes = json.loads((runs / "evaluate" / "imagenet" / "metrics.json").read_text())
    assert classes["count"] == 12 and classes["baseline"]["top1"] == pytest.approx(1 / 12)
    face = json.loads((runs / "evaluate" / "face" / "metrics.json").read_text())
    assert face["full"]["count"] == 6 and face["baseline"]["full"]["NME"] > 0
    mesh = json.loads((runs / "evaluate" / "mesh" / "metrics.json").read_text())
    assert mesh["generated"]["count"] == 4 and mesh["baseline"]["generated"]["mpjpe"] > 0
    for task in ("imagenet", "wholebody", "face", "mesh"):
        assert (runs / "visualize" / task / "tokens.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((workplace.folder / "metrics" / "sample" / f"evaluate-{task}.json").read_text())
        assert (runs / "visualize" / task / "inspector.json").is_file()
    report = (runs / "report" / "report.md").read_text()
    assert all(title in report for title in ("whole-body pose", "face landmarks", "body mesh"))

    # One MLflow run a training, in one for the execution of the graph; later stages added to them.
    with sqlite3.connect(workplace.folder / "mlflow.db") as database:
        recorded = dict(
            database.execute("select value, status from runs join tags using (run_uuid) where key = 'dvc.stage'")
        )
        parents = database.execute("select distinct value from tags where key = 'mlflow.parentRunId'").fetchall()
        statuses = database.execute("select status from runs where run_uuid = ?", *parents).fetchall()
        headlines = {key for (key,) in database.execute("select key from latest_metrics where run_uuid = ?", *parents)}
        keys = {key for (key,) in database.execute("select distinct key from metrics")}
        tags = {key for (key,) in database.execute("select distinct key from tags")}
        parameters = {key for (key,) in database.execute("select distinct key from params")}
    trainings = ("pretrain", "finetune@wholebody", "finetune@face", "finetune@mesh")
    assert recorded == dict.fromkeys(trainings, "FINISHED")
    assert len(parents) == 1 and statuses == [("FINISHED",)]
    assert {"body/AP", "wholebody/AP", "face/NME", "imagenet/top1", "mesh/MPJPE"} <= headlines
    assert {"loss", "lr", "val_loss", "evaluate.wholebody.body.AP", "evaluate.imagenet.top1"} <= keys
    assert {"evaluate.face.full.NME", "evaluate.mesh.generated.pa_mpjpe"} <= keys
    assert {"git.revision", "data.sha256", "dvc.stage"} <= tags
    assert "training.optimizer.lr" in parameters
    artifacts = {path.name for path in (workplace.folder / "mlruns").rglob("*") if path.is_file()}
    assert {"model.safetensors", "tokens.png", "metrics.json"} <= artifacts

    shown = workplace.run("dvc", "metrics", "show")
    assert "metrics/sample/finetune-face.json" in shown and "PA_MPJPE" in shown and "!" not in shown
    assert stages_run_by(workplace, "dvc", "repro") == set()
    workplace.set(cluster__workers=1, tracking__experiment="another")
    assert stages_run_by(workplace, "dvc", "repro") == set(), "where things run is no result"
    workplace.set(sample__finetune__wholebody__training__optimizer__lr=0.001)
    assert stages_run_by(workplace, "dvc", "repro", **shared_ray) == {
        "finetune@wholebody",
        "evaluate@wholebody",
        "visualize@wholebody",
        "report",
    }


def test_a_killed_worker_and_a_killed_driver_change_no_bit(workplace: Workplace, shared_ray: dict[str, str]) -> None:
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    settings = {  # deconvolutions: their BatchNorms' statistics are averaged over the workers
        "initial": str(initial),
        "task__neck": "deconv",
        "training__epochs": 4,
        "training__checkpoint_every": 2,
        "training__log_every": 1,
    }
    workplace.set(**{f"sample__finetune__wholebody__{name}": value for name, value in settings.items()})
    workplace.run("python", "-m", "stages.prepare", "wholebody", **shared_ray)
    weights = workplace.folder / "runs" / "sample" / "finetune" / "wholebody" / "model.safetensors"
    curve = weights.with_name("training.csv")
    stage = ("python", "-m", "stages.finetune", "wholebody")

    workplace.run(*stage, **shared_ray)
    undisturbed = digest(weights), digest(curve)
    assert "already trained" in workplace.run(*stage, **shared_ray)
    assert (digest(weights), digest(curve)) == undisturbed

    # The fault reaches the workers of a Ray that the stage starts itself.
    printed = workplace.run(*stage, "--fresh", TCFORMER_FAULT="kill:1:5")
    assert "resumed after step" in printed  # 4, or 2 if that checkpoint was still being written
    assert (digest(weights), digest(curve)) == undisturbed

    # The driver: killed once the first checkpoint is there, before the training ends.
    weights.unlink()
    process = workplace.start(*stage, "--fresh", TCFORMER_FAULT="slow:0:1")
    store = next((workplace.folder / "runs" / "sample" / "checkpoints").glob("finetune-wholebody-*/"))
    deadline = time.monotonic() + 200
    while not (store / "step-00000002" / "manifest.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not weights.exists()
    printed = workplace.run(*stage, **shared_ray)
    assert "resuming from the checkpoints" in printed and "resumed after step" in printed
    assert (digest(weights), digest(curve)) == undisturbed


def test_an_exception_in_a_worker_is_reported_at_once(workplace: Workplace, shared_ray: dict[str, str]) -> None:
    workplace.run("python", "-m", "stages.prepare", "imagenet", **shared_ray)
    workplace.set(sample__pretrain__training__optimizer__lr=1e30, sample__pretrain__training__optimizer__clip_norm=None)
    started = time.monotonic()
    printed = workplace.run("python", "-m", "stages.pretrain", status=2, **shared_ray)
    assert "the loss is not finite" in printed, "steps are skipped with a note"
    assert "error: val_" in printed and "lower the learning rate" in printed
    assert "Traceback" not in printed
    assert "resumed" not in printed and time.monotonic() - started < 120


def test_a_mistyped_parameter_starts_nothing(workplace: Workplace) -> None:
    path = workplace.folder / "params.yaml"
    path.write_text(path.read_text().replace("warmup_steps", "warmup_step", 1))
    printed = workplace.run("python", "-m", "stages.pretrain", status=2)
    assert "did you mean warmup_steps?" in printed and "Traceback" not in printed


def test_real_images_by_changing_the_data_root_alone(workplace: Workplace, samples: Path) -> None:
    tcformer.save_model(
        tcformer.create_model("tcformer_nano", task="wholebody"),
        workplace.folder / "runs" / "sample" / "finetune" / "wholebody" / "model.safetensors",
        {"options": workplace.options("wholebody"), "training": "untrained"},
    )
    root = str(samples / "coco_wholebody")
    workplace.set(sample__evaluate__wholebody__data_root=root, sample__visualize__wholebody__data_root=root)
    workplace.run("python", "-m", "stages.evaluate", "wholebody", "--local")
    runs = workplace.folder / "runs" / "sample"
    assert set(json.loads((runs / "evaluate" / "wholebody" / "metrics.json").read_text())["body"]) >= {"AP", "AR"}
    workplace.run("python", "-m", "stages.visualize", "wholebody")
    assert (runs / "visualize" / "wholebody" / "tokens.png").stat().st_size > 10_000

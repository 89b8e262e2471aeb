"""The whole graph through the real tools, small: DVC starts stages, stages start Ray, Ray starts DeepSpeed workers."""

import json
import sqlite3

import pytest

from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.early]


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
    workplace.set(sample__finetune__face__training__optimizer__lr=0.001)
    assert stages_run_by(workplace, "dvc", "repro", **shared_ray) == {
        "finetune@face",
        "evaluate@face",
        "visualize@face",
        "report",
    }

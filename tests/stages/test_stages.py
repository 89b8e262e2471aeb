"""Single stages through the real tools, small: faults, wrong parameters, other data."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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

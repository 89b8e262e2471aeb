"""Stages in their own process: the same results as through Ray and DeepSpeed, and a debugger can stop in them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tcformer
from pipelines.training import loop
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


@pytest.fixture
def faces(workplace: Workplace) -> Path:
    """A face training of one worker that starts from given weights; returns the folder of its outputs."""
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    workplace.set(
        cluster__workers=1,
        sample__finetune__face__initial=str(initial),
        sample__finetune__face__training__epochs=3,
        sample__finetune__face__training__micro_batch=2,
        sample__finetune__face__training__log_every=1,
    )
    return workplace.folder / "runs/sample/finetune/face"


def results(out: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    texts = {name: (out / name).read_text() for name in ("training.csv", "validation.csv", "metrics.json")}
    return load_file(out / "model.safetensors"), texts


def test_local_equals_one_ray_worker(workplace: Workplace, faces: Path, shared_ray: dict[str, str]) -> None:
    workplace.run("python", "-m", "stages.prepare", "face", "--local")
    data = (workplace.folder / "data/sample/face/manifest.json").read_text()
    workplace.run("python", "-m", "stages.prepare", "face", **shared_ray)
    assert (workplace.folder / "data/sample/face/manifest.json").read_text() == data

    printed = workplace.run("python", "-m", "stages.finetune", "face", "--local", OMP_NUM_THREADS="1")
    assert "3 steps on 1 cpu worker (4 x 2 samples each)" in printed
    local_weights, local_texts = results(faces)
    evaluate = ("python", "-m", "stages.evaluate", "face")
    workplace.run(*evaluate, "--local", OMP_NUM_THREADS="1")
    predictions = workplace.folder / "runs/sample/evaluate/face/predictions.json"
    local_predictions = hashlib.sha256(predictions.read_bytes()).hexdigest()

    printed = workplace.run("python", "-m", "stages.finetune", "face", **shared_ray)
    assert "already trained" not in printed, "the engines' checkpoints are other files"
    weights, texts = results(faces)
    assert texts == local_texts
    assert weights.keys() == local_weights.keys()
    assert [name for name, value in weights.items() if not torch.equal(value, local_weights[name])] == []
    workplace.run(*evaluate, **shared_ray)
    assert hashlib.sha256(predictions.read_bytes()).hexdigest() == local_predictions
    assert json.loads((faces / "provenance.json").read_text())["training"].startswith("finetune-face-")

    # The same with checkpoints behind an address; the workers of this machine read the data where they are.
    storage = workplace.folder / "storage"
    workplace.set(cluster__storage=storage.as_uri())
    workplace.run("python", "-m", "stages.finetune", "face", **shared_ray)
    assert len(list(storage.glob("finetune-face-*/final"))) == 1 and not (storage / "data").exists()
    weights, texts = results(faces)
    assert texts == local_texts and all(torch.equal(value, local_weights[name]) for name, value in weights.items())


def test_a_debugger_steps_through_a_training(workplace: Workplace, faces: Path) -> None:
    workplace.run("python", "-m", "stages.prepare", "face", "--local")
    source = Path(loop.__file__).read_text().splitlines()

    def line_of(call: str) -> int:
        return next(number for number, text in enumerate(source, 1) if call in text)

    commands = [
        f"b pipelines/training/loop.py:{line_of('engine.backward(')}",
        "c",
        "p 'loss', float(losses['loss'].detach()), 'step', step",
        "clear 1",
        f"tbreak pipelines/training/loop.py:{line_of('meter.add(')}",
        "c",
        "s",  # into the meter
        "p 'self', type(self).__name__",
        "c",
        "q",
    ]
    workplace.folder.joinpath("commands").write_text("\n".join(commands) + "\n")
    shell = "python -m pdb -m stages.finetune face --local < commands"
    printed = workplace.run("bash", "-c", shell)
    assert "Breakpoint 1 at" in printed
    assert re.search(r"\('loss', \d[\d.e-]*, 'step', 0\)", printed), printed
    assert "('self', 'LossMeter')" in printed, printed
    assert (faces / "model.safetensors").is_file(), "it went on to its end"

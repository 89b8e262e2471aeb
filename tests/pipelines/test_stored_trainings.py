"""What is told of, listed and deleted among the trainings of a store, and what is refused before a training starts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import layout
from pipelines.adapters.storage import Store
from pipelines.datasets.prepared import Prepared
from pipelines.driver import run as driver
from pipelines.driver.cleaning import clean_trainings, list_trainings
from pipelines.driver.lease import only_one
from pipelines.driver.plan import TrainingPlan
from pipelines.driver.stored import differences, write_inputs
from pipelines.params import Params
from pipelines.training import checkpoint
from tcformer.errors import UserError
from tests.small import generate, parameters

OTHER = "finetune-face-0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    monkeypatch.setattr(driver, "Run", lambda *arguments, **options: _NoRun())
    monkeypatch.setattr(driver, "session", lambda cluster: pytest.fail("Ray was started"))
    return tmp_path


class _NoRun:
    def close(self, status: str) -> None:
        """No MLflow."""


def plan_for(params: Params, data: Path) -> TrainingPlan:
    section = params.sample.training_of("face")
    return TrainingPlan(params.sample.spec_of("face"), section.training, Prepared(data, "0" * 64, False), initial=None)


def checkpoints(root: Path) -> Path:
    return root / "runs" / "sample" / "checkpoints"


def store_training(root: Path, name: str, inputs: dict[str, Any] | None, recipe: str = "sample") -> Store:
    """An unfinished training after step 4."""
    store = Store(str(checkpoints(root) / name))
    store.write("step-00000004/network.safetensors", bytes(1_500_000))
    checkpoint.commit(store, "step-00000004", {})
    if inputs is not None:
        write_inputs(store, recipe, inputs)
    return store


def test_differences_are_named_as_in_the_parameters() -> None:
    old = {"training": {"optimizer": {"lr": 0.002}, "epochs": 3}, "code": "a", "task": {"input_size": [64, 64]}}
    new = {"training": {"optimizer": {"lr": 0.001}, "epochs": 3}, "code": "b", "task": {"input_size": [32, 64]}}
    assert differences(old, new) == [
        "training.optimizer.lr 0.002 -> 0.001",
        "other code",
        "task.input_size [64, 64] -> [32, 64]",
    ]
    assert differences(old, old) == []
    assert differences({}, {"torch": "2.14"}) == ['torch null -> "2.14"']


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_an_unfinished_training_with_other_parameters_is_reported(
    root: Path, fresh: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Launched(Exception):
        """The training would start."""

    def launch(*arguments: object) -> None:
        raise Launched

    monkeypatch.setattr(driver, "_launch", launch)
    first, second = (
        plan_for(parameters(root, finetune__face__training__optimizer__lr=lr), root) for lr in (0.002, 0.001)
    )
    params = parameters(root)
    store_training(root, first.key, first.inputs)
    far = {**first.inputs, "torch": "1.0", "code": "another"}
    store_training(root, "finetune-face-ffffffffffffffff", far)
    store_training(root, "finetune-face-eeeeeeeeeeeeeeee", first.inputs, recipe="paper")
    store_training(root, "pretrain-eeeeeeeeeeeeeeee", first.inputs)
    with pytest.raises(Launched):
        driver.run(second, params, root / "out", fresh)
    printed = capsys.readouterr().out
    assert ("one of 2, stopped after step 4" in printed) == (not fresh)
    assert (
        f"training.optimizer.lr 0.002 -> 0.001. Its checkpoints are in {checkpoints(root)}/{first.key};" in printed
    ) == (not fresh)

    with pytest.raises(Launched):
        driver.run(first, params, root / "out")
    printed = capsys.readouterr().out
    assert "resuming" in printed and "from the beginning" not in printed
    with pytest.raises(Launched):  # its inputs are stored now, but it has no checkpoint
        driver.run(plan_for(parameters(root, finetune__face__training__epochs=7), root), params, root / "out")
    assert second.key not in capsys.readouterr().out


def test_a_finished_training_is_complete_unless_a_fresh_one_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched, written = [], []
    params = parameters(root)
    plan = plan_for(params, root)
    store = store_training(root, plan.key, plan.inputs)

    def finish(*arguments: object) -> None:
        launched.append(arguments)
        store.write(f"{checkpoint.FINAL}/network.safetensors", b"weights")
        checkpoint.commit(store, checkpoint.FINAL, {"network.safetensors": hashlib.sha256(b"weights").hexdigest()})

    monkeypatch.setattr(driver, "_launch", finish)
    monkeypatch.setattr(
        driver, "write_outputs", lambda finished, out, about: (out.mkdir(exist_ok=True), written.append(out))
    )
    for fresh, said, times in ((False, "resuming", 1), (False, "already trained", 1), (True, "", 2)):
        driver.run(plan, params, root / "out", fresh)
        printed = capsys.readouterr().out
        assert said in printed and ("already trained" in printed) == (said == "already trained")
        assert len(launched) == times
    assert written == [root / "out"] * 3


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts(root: Path) -> None:
    params = parameters(root)
    cluster = params.cluster.model_copy(update={"workers": 3})
    plan = plan_for(params, generate("face", params, root / "data"))
    store = store_training(root, plan.key, plan.inputs)
    with pytest.raises(UserError, match=r"global_batch = 4 cannot be shared by 3 workers: choose a multiple of 3"):
        driver.run(plan, params.model_copy(update={"cluster": cluster}), root / "out")
    assert store.folders() == ["step-00000004"]


@pytest.fixture
def present(root: Path) -> tuple[Params, TrainingPlan]:
    """Faces are prepared, with weights to start from; other tasks are not."""
    data = root / "data" / "sample" / "face"
    (data).mkdir(parents=True)
    (data / "manifest.json").write_text('{"root": null, "sha256": "0"}')
    (root / "initial.safetensors").write_bytes(b"weights")
    params = parameters(root, finetune__face__initial=str(root / "initial.safetensors"))
    section = params.sample.training_of("face")
    plan = TrainingPlan(
        params.sample.spec_of("face"), section.training, Prepared.open(data), root / "initial.safetensors"
    )
    return params, plan


@pytest.mark.parametrize("clean", [list_trainings, clean_trainings])
def test_trainings_with_other_inputs_are_listed_and_deleted(
    present: tuple[Params, TrainingPlan],
    clean: Callable[[Params], None],
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params, plan = present
    old = {**plan.inputs, "training": {**plan.inputs["training"], "epochs": 99}}
    kept = [plan.key, f"{plan.key}-local", "pretrain-0123456789abcdef", "finetune-face-1111111111111111"]
    for name in kept[:3]:
        store_training(root, name, old)
    store_training(root, kept[3], old, recipe="paper")
    busy = "finetune-face-2222222222222222"
    for name in (OTHER, busy):
        store_training(root, name, old)
    store_training(root, "finetune-face-3333333333333333-local", None)
    store_training(root, "finetune-ear-3333333333333333", None)
    (checkpoints(root) / f"{OTHER}.lock").touch()
    shutil.copytree(checkpoints(root) / OTHER, checkpoints(root) / "something else")
    before = {path.name for path in checkpoints(root).iterdir()}
    with only_one(checkpoints(root) / f"{busy}.lock", "this training"):
        clean(params)
    printed = capsys.readouterr().out.splitlines()
    after = {path.name for path in checkpoints(root).iterdir() if path.suffix not in (".lock", ".owner")}
    if clean is list_trainings:
        assert before <= after | {f"{OTHER}.lock"}
        epochs = plan.training.epochs
        assert f"{OTHER}: 1.5 MB, step 4, old: training.epochs 99 -> {epochs}" in printed
        assert f"{plan.key}: 1.5 MB, step 4, kept: the present inputs" in printed
        assert printed[-1] == f"8 trainings in {checkpoints(root)}"
    else:
        assert after == {*kept, busy, "something else"}
        assert any(line.startswith(f"{busy}: kept: this training is running already") for line in printed)
        assert any(
            line.startswith("pretrain-0123456789abcdef: kept: the present inputs are unknown") for line in printed
        )
        assert printed[-1] == f"4.5 MB freed in {checkpoints(root)}"
        assert not (checkpoints(root) / f"{OTHER}.lock").exists()

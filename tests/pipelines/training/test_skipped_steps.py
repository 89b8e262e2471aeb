"""Steps that are not finite, values that are not finite, disks that are full: with the plain PyTorch engine."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.adapters.storage import Store
from pipelines.driver.local import train_locally
from pipelines.training import checkpoint
from pipelines.training.engine import EngineOptions, TorchEngine
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started
from pipelines.training.job import Job
from pipelines.training.loop import HISTORY, MOST_SKIPPED
from pipelines.training.outputs import write_outputs
from pipelines.training.sampling import SampleOrder
from tcformer.errors import UserError
from tcformer.files import sha256_of_file
from tcformer.models import Network
from tests.small import face_job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Six steps of two micro batches; the neck has batch normalisation, whose statistics a skipped step must keep."""
    changes = {"training__micro_batch": 2, "training__ema_decay": 0.5, "task__neck": "deconv"}
    return face_job(tmp_path_factory.mktemp("skipped"), **changes)


@dataclass
class Snapshot:
    """What a step may change, before the step."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    rate: float


class Recorder(TorchEngine):
    """An engine with faults: steps, counted from 0, in which the second micro batch gives a loss that is not finite."""

    bad_steps: frozenset[int] = frozenset()
    factor = float("nan")
    where = "loss"
    snapshots: list[Snapshot]
    latest: Recorder

    def __init__(self, model: Network, options: EngineOptions) -> None:
        super().__init__(model, options)
        type(self).snapshots, type(self).latest = [], self

    @property
    def _is_bad(self) -> bool:
        return self._scheduler.last_epoch in self.bad_steps and self._waiting == 1

    def backward(self, loss: Tensor) -> None:
        is_bad = self._is_bad
        if is_bad and self.where == "loss":
            loss.data.mul_(self.factor)
        super().backward(loss)
        if is_bad and self.where == "gradients":
            parameter = next(p for p in self.module.parameters() if p.grad is not None)
            assert parameter.grad is not None
            parameter.grad.view(-1)[0] = self.factor

    def __call__(self, images: Tensor) -> Tensor:
        if self._waiting == 0:
            state = self.optimizer_state()
            weights = {name: value.clone() for name, value in self.module.state_dict().items()}
            moments = {name: value.clone() for name, value in state.moments.items()}
            self.snapshots.append(Snapshot(weights, moments, self.learning_rate))
        return super().__call__(images)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    class Engine(Recorder):
        pass

    monkeypatch.setattr("pipelines.driver.local.TorchEngine", Engine)
    return Engine


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def train(job: Job, store: Path, **changes: object) -> tuple[Job, list[Event]]:
    events: list[Event] = []
    other = replace(job, store=str(store), training=job.training.model_copy(update=changes))
    train_locally(other, events.append)
    return other, events


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "factor"), [("loss", float("nan")), ("loss", float("inf")), ("gradients", float("-inf"))]
)
def test_a_step_that_is_not_finite_changes_nothing(
    job: Job, engine: type[Recorder], where: str, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    monkeypatch.setattr("pipelines.training.ema.WeightAverage.update", lambda self, model, step: updates.append(step))
    train(job, tmp_path / "good")
    rates = [snapshot.rate for snapshot in engine.snapshots]
    assert updates == [0, 1, 2, 3, 4, 5] and len(set(rates)) > 3
    updates.clear()

    engine.bad_steps, engine.where, engine.factor = frozenset({2}), where, factor
    bad, events = train(job, tmp_path / "bad")
    before, skipped, after = engine.snapshots[2:5]
    assert equal(skipped.weights, before.weights) and equal(skipped.moments, before.moments)
    assert not equal(after.weights, skipped.weights) and not equal(after.moments, skipped.moments)
    assert any(name.endswith("running_var") for name in before.weights)
    assert all(bool(value.isfinite().all()) for value in after.weights.values())
    assert [snapshot.rate for snapshot in engine.snapshots] == rates, "the schedule goes on"
    assert updates == [0, 1, 3, 4, 5]

    rows = [event for event in events if isinstance(event, Row) and "loss" in event.values]
    assert [(row.step, row.momentary["skipped_steps"]) for row in rows] == [(1, 0), (2, 0), (4, 1), (5, 1), (6, 1)]
    places = range(10, 12) if where == "loss" else range(8, 12)
    verb = "loss is" if where == "loss" else "gradients are"
    samples = ", ".join(str(SampleOrder(8, job.training.seed)[place][1]) for place in places)
    expected = f"step 3: the {verb} not finite for the training set's samples {samples}; the step is skipped"
    assert [event.text for event in events if isinstance(event, Note)][1:] == [expected]
    write_outputs(Path(bad.store) / checkpoint.FINAL, tmp_path / "out", {})
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["skipped_steps"] == 1


def test_ten_steps_in_a_row_end_the_training_also_across_a_resume(
    job: Job, engine: type[Recorder], tmp_path: Path
) -> None:
    engine.bad_steps = frozenset({1, *range(3, 20)})
    other = replace(
        job,
        store=str(tmp_path / "store"),
        training=job.training.model_copy(update={"epochs": 10, "validate_every": 10}),
    )
    train_locally(other, lambda event: None, stops_before=lambda step: step == 7)
    expected = r"step 13: the loss is not finite .* samples \d, \d, and 9 steps before it were skipped.*step-00000012"
    with pytest.raises(UserError, match=expected):
        train_locally(other, lambda event: None)
    assert MOST_SKIPPED == 10 and checkpoint.fault(Store(other.store), "step-00000012", tmp_path) is None


def test_a_checkpoint_with_a_value_that_is_not_finite_is_not_written(
    job: Job, engine: type[Recorder], tmp_path: Path
) -> None:
    def spoil(event: Event) -> None:
        if isinstance(event, Row) and event.step == 4:
            with torch.no_grad():
                next(engine.latest.module.parameters()).view(-1)[0] = torch.inf

    training = job.training.model_copy(update={"validate_every": 3})
    other = replace(job, store=str(tmp_path / "store"), training=training)
    with pytest.raises(UserError, match=r"weights contain NaN or infinity after step 4 .*checkpoint is step-00000002"):
        train_locally(other, spoil)
    assert Store(other.store).folders() == ["step-00000002"]


def test_a_checkpoint_contains_safetensors_and_json_alone(job: Job, tmp_path: Path) -> None:
    other = replace(job, store=str(tmp_path / "store"))
    train_locally(other, lambda event: None, stops_before=lambda step: step == 3)
    folder = tmp_path / "store" / checkpoint.folder_name(3)
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            assert load_file(path)
        else:
            json.loads(path.read_text())


def test_pickles_are_never_opened_even_if_a_manifest_vouches_for_them(job: Job, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
            return Path.write_text, (tmp_path / "executed", "")  # type: ignore[return-value]

    folder = tmp_path / "store" / checkpoint.folder_name(4)
    (folder / "state").mkdir(parents=True)
    (folder / HISTORY).write_text("[]")
    bomb = folder / "state" / "mp_rank_00_model_states.pt"
    bomb.write_bytes(pickle.dumps(Bomb()))
    digests = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in (bomb, folder / HISTORY)}
    checkpoint.commit(Store(str(tmp_path / "store")), folder.name, digests)
    _, events = train(job, tmp_path / "store")
    assert events[0] == Note(
        "checkpoint step-00000004 is not used: it contains no network.safetensors, so another program wrote it"
    )
    assert isinstance(events[1], Started) and events[1].step == 0
    assert not (tmp_path / "executed").exists()


def test_a_manifest_names_no_file_outside_of_its_checkpoint(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/store")
    for key in ("../other", "/etc/hostname"):
        checkpoint.commit(store, "step-00000001", {key: "0"})
        found = checkpoint.fault(store, "step-00000001", tmp_path / "cache")
        assert found == f"its manifest names {key}, which is outside of it"


@pytest.fixture
def restored_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["little is free", "a write fails"])
def test_a_full_disk_ends_the_training_and_keeps_the_checkpoint_before(
    job: Job, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_limit: None
) -> None:
    other = replace(job, store=str(tmp_path / "store"))

    def fill(event: Event) -> None:
        if event == CheckpointSaved(2):
            if how == "little is free":
                usage = shutil.disk_usage(tmp_path)._replace(free=1234)
                monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
            else:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    with pytest.raises(
        UserError, match=r"no space for .*: it needs \d{6,} bytes, and the disk has \d+ bytes"
    ) as caught:
        train_locally(other, fill)
    assert how == "a write fails" or "the disk has 1234 bytes free" in str(caught.value)
    store = Store(other.store)
    assert store.folders() == ["step-00000002"]
    assert checkpoint.fault(store, "step-00000002", tmp_path) is None


def test_a_file_that_does_not_fit_is_removed(tmp_path: Path, restored_limit: None) -> None:
    store = Store(str(tmp_path / "store"))
    store.write("step-00000001/network", b"old")
    files = {"a": b"small", "network": bytes(5000)}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    with pytest.raises(UserError, match="no space for step-00000002/network: it needs 5000 bytes"):
        checkpoint.save(store, "step-00000002", files.items(), size=5005)
    assert store.folders() == ["step-00000001"] and store.read("step-00000001/network") == b"old"

"""The whole training loop in this process, with the plain PyTorch engine: seconds, no Ray, no DeepSpeed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tcformer
from pipelines.adapters.storage import Store
from pipelines.driver.local import train_locally
from pipelines.layout import LAST_WEIGHTS, WEIGHTS
from pipelines.params import Optimizer, Training
from pipelines.training import checkpoint
from pipelines.training.engine import TorchEngine
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started, Stopped
from pipelines.training.job import Job
from pipelines.training.loading import validation_batches
from pipelines.training.loop import HISTORY, best_validation
from pipelines.training.outputs import write_csv, write_outputs
from tcformer.errors import UserError
from tcformer.models import read_about
from tcformer.tasks import Batch, Dataset, ValidationMeasure
from tcformer.tasks.face.task import FaceTask
from tests.small import face_job

STEPS = 6


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Faces: 8 images, three epochs of two steps of two micro batches."""
    changes = {"micro_batch": 2, "validate_every": 2, "optimizer__warmup_steps": 2}
    folder = tmp_path_factory.mktemp("loop")
    return face_job(folder, **{f"training__{name}": value for name, value in changes.items()})


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> list[Event]:
    """What the training of `job` tells."""
    events: list[Event] = []
    train_locally(job, events.append)
    return events


def weights(job: Job) -> dict[str, torch.Tensor]:
    return tcformer.load_model(Path(job.store) / checkpoint.FINAL / WEIGHTS).state_dict()


class DriverGone(Exception):
    """The driver is gone."""


def with_training(job: Job, store: Path, **changes: object) -> Job:
    """The job with other parameters of the loop, and a store of its own."""
    return replace(job, store=str(store), training=job.training.model_copy(update=changes))


def stop_at(step: int) -> Callable[[Event], None]:
    """A driver that goes away when the checkpoint of a step is complete."""

    def stop(event: Event) -> None:
        if event == CheckpointSaved(step):
            raise DriverGone

    return stop


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The network's values after each optimiser step of a training."""
    found: list[dict[str, torch.Tensor]] = []

    class Recorder(TorchEngine):
        def step(self) -> bool:
            is_applied = super().step()
            if self._waiting == 0:
                found.append({name: value.clone() for name, value in self.module.state_dict().items()})
            return is_applied

    monkeypatch.setattr("pipelines.driver.local.TorchEngine", Recorder)
    return found


def history(job: Job) -> list[dict[str, float]]:
    return json.loads((Path(job.store) / checkpoint.FINAL / HISTORY).read_text())


def test_it_reports_its_start_its_rows_and_its_checkpoints(job: Job, undisturbed: list[Event]) -> None:
    assert undisturbed[0] == Started(
        step=0, steps=STEPS, samples=8, device="cpu", workers=1, accumulation=2, micro_batch=2
    )
    notes = [event.text for event in undisturbed if isinstance(event, Note)]
    assert notes == ["linear and convolution layers compute in float32"]
    assert [event.step for event in undisturbed if isinstance(event, CheckpointSaved)] == [2, 4]
    rows = [event for event in undisturbed if isinstance(event, Row)]
    assert [row.step for row in rows if "loss" in row.values] == [1, 2, 3, 4, 5, 6]
    assert [row.step for row in rows if "val_loss" in row.values] == [4, 6]
    momentary = {"images_per_second", "replaced_images", "skipped_steps"}
    assert all(set(row.momentary) == momentary for row in rows if "loss" in row.values)
    assert [{"step": row.step, "epoch": row.epoch, **row.values} for row in rows] == history(job)


def test_the_logged_learning_rate_is_the_optimisers(job: Job, undisturbed: list[Event]) -> None:
    rates = [event.values["lr"] for event in undisturbed if isinstance(event, Row) and "lr" in event.values]
    chosen = job.training.optimizer
    assert rates[0] == pytest.approx(chosen.warmup_lr) and max(rates) < chosen.lr and rates[-1] < rates[3]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_a_training_that_is_cut_and_resumed_gives_the_same_bits(
    job: Job, undisturbed: list[Event], step: int, tmp_path: Path
) -> None:
    other = replace(job, store=str(tmp_path / "store"))
    with pytest.raises(DriverGone):
        train_locally(other, stop_at(step))
    events: list[Event] = []
    train_locally(other, events.append)
    assert isinstance(events[0], Started) and events[0].step == step
    assert history(other) == history(job)
    assert all(torch.equal(value, weights(job)[name]) for name, value in weights(other).items())


@pytest.mark.slow
def test_clusters_after_a_share_of_the_steps(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    def variant(name: str, **network: object) -> Job:
        task = replace(job.task, network=replace(job.task.network, **network))
        return replace(job, task=task, store=str(tmp_path / name))

    later, grid = (
        variant("later", token_reduction="ctm", cluster_after=0.5),
        variant("grid", token_reduction="ctm_grid"),
    )
    plain = variant("plain", token_reduction="ctm")
    for each in (later, grid, plain):
        train_locally(each, lambda event: None)
    losses = [[row["loss"] for row in history(each) if "loss" in row] for each in (later, grid, plain)]
    assert losses[0][:3] == losses[1][:3] != losses[2][:3]
    assert losses[0][3] != losses[1][3]

    def stop(event: Event) -> None:
        if event == CheckpointSaved(4):
            raise DriverGone

    cut = variant("cut", token_reduction="ctm", cluster_after=0.5)
    with pytest.raises(DriverGone):
        train_locally(cut, stop)
    train_locally(cut, lambda event: None)
    assert history(cut) == history(later)
    assert all(torch.equal(value, weights(later)[name]) for name, value in weights(cut).items())


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_a_training_that_is_stopped_and_resumed_gives_the_same_bits(
    job: Job, undisturbed: list[Event], step: int, tmp_path: Path
) -> None:
    """At any step, also between two rows of the history."""
    rows = job.training.model_copy(update={"log_every": 4})
    whole, other = (replace(job, training=rows, store=str(tmp_path / name)) for name in ("whole", "stopped"))
    train_locally(whole, lambda event: None)
    events: list[Event] = []
    train_locally(other, events.append, stops_before=lambda next_step: next_step >= step)
    assert events[-2:] == [CheckpointSaved(step), Stopped(step)]
    assert not (tmp_path / "stopped" / checkpoint.FINAL).exists()
    train_locally(other, lambda event: None)
    assert history(other) == history(whole)
    assert all(torch.equal(value, weights(job)[name]) for name, value in weights(other).items())


def test_a_damaged_checkpoint_is_skipped_with_a_note(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    other = replace(job, store=str(tmp_path / "store"))
    with pytest.raises(DriverGone):
        train_locally(other, stop_at(4))
    (tmp_path / "store" / checkpoint.folder_name(4) / "network.safetensors").write_bytes(b"damaged")
    events: list[Event] = []
    train_locally(other, events.append)
    assert (
        isinstance(events[0], Note) and "step-00000004 is not used: network.safetensors was altered" in events[0].text
    )
    assert isinstance(events[1], Started) and events[1].step == 2
    assert history(other) == history(job)


@pytest.mark.slow
def test_loader_processes_change_no_bit(
    job: Job, undisturbed: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They also serve the validations."""
    asked: list[int] = []

    def recorded(data: Dataset, rank: int, workers: int, size: int, processes: int) -> Iterable[Batch]:
        asked.append(processes)
        return validation_batches(data, rank, workers, size, processes)

    monkeypatch.setattr("pipelines.training.loop.validation_batches", recorded)
    other = replace(job, store=str(tmp_path / "store"), loader_processes=1)
    train_locally(other, lambda event: None)
    assert asked == [1, 1] and history(other) == history(job)


def test_the_validation_set_is_read_once(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    read = FaceTask.val_set
    monkeypatch.setattr(FaceTask, "val_set", lambda task: calls.append("read") or read(task))
    train_locally(replace(job, store=str(tmp_path / "store")), lambda event: None)
    assert calls == ["read"]


def test_no_epochs_keep_the_initial_weights(job: Job, tmp_path: Path) -> None:
    other = replace(job, store=str(tmp_path / "store"), training=job.training.model_copy(update={"epochs": 0}))
    events: list[Event] = []
    train_locally(other, events.append)
    assert [type(event) for event in events] == [Started, Row]
    torch.manual_seed(job.training.seed)
    drawn = job.task.build(Path(job.data.root)).build_model().state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in weights(other).items())

    for changes in ({"ema_decay": 0.9}, {"keep": "best"}):
        changed = with_training(other, tmp_path / next(iter(changes)), **changes)
        train_locally(changed, lambda event: None)
        assert all(torch.equal(value, drawn[name]) for name, value in weights(changed).items())
        assert history(changed) == history(other)


def test_the_average_is_that_of_the_weights_after_each_step(
    job: Job, undisturbed: list[Event], snapshots: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """Running statistics of batch normalisation are averaged too, and its counters copied."""
    with_norms = replace(job, task=replace(job.task, options=replace(job.task.options, neck="deconv")))
    plain = replace(with_norms, store=str(tmp_path / "plain"))
    train_locally(plain, lambda event: None)
    assert len(snapshots) == STEPS
    averaged = with_training(with_norms, tmp_path / "averaged", ema_decay=0.3)
    train_locally(averaged, lambda event: None)
    assert all(torch.equal(value, snapshots[STEPS - 1][name]) for name, value in snapshots[-1].items()), "same training"

    torch.manual_seed(job.training.seed)
    drawn = with_norms.task.build(Path(job.data.root)).build_model().state_dict()
    expected = {name: value.double() for name, value in drawn.items()}
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3, 0.3, 0.3)):
        assert decay == min(0.3, (1 + step) / (10 + step))
        for name, value in snapshots[step].items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    found = weights(averaged)
    assert any(name.endswith("running_var") for name in found)
    for name, value in found.items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert torch.equal(value, snapshots[STEPS - 1][name])
    moved = [name for name, value in found.items() if not torch.equal(value, snapshots[-1][name])]
    assert len(moved) > len(found) / 2

    rows, plain_rows = history(averaged), history(plain)
    assert [row for row in rows if "loss" in row] == [row for row in plain_rows if "loss" in row]
    measured = [[row["val_nme"] for row in found if "val_nme" in row] for found in (rows, plain_rows)]
    assert all(average != last for average, last in zip(*measured)), "the average is what is validated"


@pytest.fixture
def best_is_step_4(job: Job, undisturbed: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure of faces, turned so that the first of the two validations is the better one."""
    first, last = (row["val_nme"] for row in history(job) if "val_nme" in row)
    assert first != last
    monkeypatch.setattr(FaceTask, "validation_measure", ValidationMeasure("nme", higher_is_better=first > last))


def test_the_best_weights_are_handed_out(
    job: Job, best_is_step_4: None, snapshots: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    other = with_training(job, tmp_path / "store", keep="best")
    events: list[Event] = []
    train_locally(other, events.append)
    assert history(other) == history(job)
    assert all(torch.equal(value, snapshots[3][name]) for name, value in weights(other).items())
    (best, _) = (row for row in history(job) if "val_nme" in row)
    assert Note(f"keeps the weights of step 4: the best val_nme, {best['val_nme']:.4g}") in events
    final = Path(other.store) / checkpoint.FINAL
    assert read_about(final / WEIGHTS)[1]["step"] == "4"

    write_outputs(final, tmp_path / "out", {})
    last = tmp_path / "out" / LAST_WEIGHTS
    same = tcformer.load_model(last).state_dict()
    assert all(torch.equal(value, snapshots[STEPS - 1][name]) for name, value in same.items())
    assert read_about(last)[1] == {**read_about(final / WEIGHTS)[1], "step": str(STEPS)}
    assert checkpoint.fault(Store(other.store), checkpoint.FINAL, tmp_path, (WEIGHTS, LAST_WEIGHTS)) is None
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["steps"] == 4 and metrics["val_nme"] == best["val_nme"]
    assert metrics["loss"] == next(row["loss"] for row in history(job) if row["step"] == 4)

    write_outputs(Path(job.store) / checkpoint.FINAL, tmp_path / "out", {})
    assert not last.exists(), "a training without a choice leaves only its final weights"


def test_of_equal_validations_the_earliest_is_the_best() -> None:
    rows = [{"step": 1, "loss": 0.1}, *({"step": step, "val_nme": nme} for step, nme in ((2, 0.3), (4, 0.2), (6, 0.2)))]
    assert best_validation(rows, ValidationMeasure("nme", higher_is_better=False))["step"] == 4
    rows.append({"step": 8, "val_nme": 0.3})
    assert best_validation(rows, ValidationMeasure("nme", higher_is_better=True))["step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"ema_decay": 0.9}, {"keep": "best"}, {"ema_decay": 0.9, "keep": "best"}])
def test_average_and_best_weights_survive_a_cut(
    job: Job, best_is_step_4: None, changes: dict[str, object], tmp_path: Path
) -> None:
    """Both a cut before the best validation and one after it."""
    whole = with_training(job, tmp_path / "whole", **changes)
    train_locally(whole, lambda event: None)
    for step in (2, 4):
        cut = with_training(job, tmp_path / f"cut-{step}", **changes)
        with pytest.raises(DriverGone):
            train_locally(cut, stop_at(step))
        events: list[Event] = []
        train_locally(cut, events.append)
        assert isinstance(events[0], Started) and events[0].step == step
        assert history(cut) == history(whole)
        final = Path(checkpoint.FINAL) / WEIGHTS
        assert (Path(cut.store) / final).read_bytes() == (Path(whole.store) / final).read_bytes()


def test_layer_decay_reports_the_rate_of_the_head(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    optimizer = job.training.optimizer.model_copy(update={"layer_decay": 0.5})
    other = with_training(job, tmp_path / "store", optimizer=optimizer)
    train_locally(other, lambda event: None)
    assert [row["lr"] for row in history(other) if "lr" in row] == [row["lr"] for row in history(job) if "lr" in row]
    assert any(not torch.equal(value, weights(job)[name]) for name, value in weights(other).items())


def test_a_loss_that_is_not_finite_ends_it_with_one_sentence(job: Job, tmp_path: Path) -> None:
    optimizer = job.training.optimizer.model_copy(update={"lr": 1e30, "warmup_steps": 0, "clip_norm": None})
    other = replace(
        job, store=str(tmp_path / "store"), training=job.training.model_copy(update={"optimizer": optimizer})
    )
    with pytest.raises(UserError, match=r"heat maps contain NaN .*: train again with a lower learning rate"):
        train_locally(other, lambda event: None)


def test_bf16_is_what_the_layers_compute_in(job: Job, tmp_path: Path) -> None:
    training = job.training.model_copy(update={"precision": "bf16", "epochs": 1})
    events: list[Event] = []
    train_locally(replace(job, store=str(tmp_path / "store"), training=training), events.append)
    assert Note("linear and convolution layers compute in bfloat16") in events
    losses = [event.values["loss"] for event in events if isinstance(event, Row) and "loss" in event.values]
    assert losses and all(0 < loss < 1 for loss in losses)


def test_outputs_have_a_column_for_each_value_that_ever_was(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_csv(path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "pose_loss": 3.0}], "loss")
    assert path.read_text() == "step,loss,pose_loss\n1,0.5,\n2,0.25,3\n"
    write_csv(path, [], "val_loss")
    assert path.read_text() == "step,epoch,val_loss\n"

    write_outputs(Path(job.store) / checkpoint.FINAL, tmp_path / "out", {"training": job.key})
    with (tmp_path / "out" / "training.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["steps"] == STEPS
    assert json.loads((tmp_path / "out" / "provenance.json").read_text()) == {"training": job.key}


def test_a_store_at_an_address_serves_as_well(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    other = replace(job, store=f"file://{tmp_path}/store")
    train_locally(other, lambda event: None)
    assert checkpoint.fault(Store(other.store), checkpoint.FINAL, tmp_path / "cache") is None
    final = (tmp_path / "store" / checkpoint.FINAL / WEIGHTS).read_bytes()
    assert final == (Path(job.store) / checkpoint.FINAL / WEIGHTS).read_bytes()


def test_parameters_are_what_the_file_says(job: Job) -> None:
    assert isinstance(job.training, Training) and isinstance(job.training.optimizer, Optimizer)

"""The whole training loop in this process, with the plain PyTorch engine: seconds, no Ray, no DeepSpeed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tcformer
from pipelines.adapters.storage import Store
from pipelines.datasets.location import DataLocation
from pipelines.driver.local import train_locally
from pipelines.layout import WEIGHTS
from pipelines.params import Optimizer, Training
from pipelines.training import checkpoint
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started, Stopped
from pipelines.training.job import Job
from pipelines.training.loop import HISTORY
from pipelines.training.outputs import write_csv, write_outputs
from tcformer.errors import UserError
from tests.small import generate, parameters

STEPS = 6


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Faces: 8 images, three epochs of two steps of two micro batches."""
    folder = tmp_path_factory.mktemp("loop")
    params = parameters(
        folder,
        finetune__face__training__epochs=3,
        finetune__face__training__micro_batch=2,
        finetune__face__training__checkpoint_every=2,
        finetune__face__training__validate_every=2,
        finetune__face__training__optimizer__warmup_steps=2,
        finetune__face__task__input_size=[32, 32],
    )
    return Job(
        name="finetune-face",
        key="finetune-face-test",
        task=params.sample.spec_of("face"),
        data=DataLocation(str(generate("face", params, folder))),
        training=params.sample.training_of("face").training,
        store=str(folder / "store"),
        initial=None,
        loader_processes=0,
    )


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> list[Event]:
    """What the training of `job` tells."""
    events: list[Event] = []
    train_locally(job, events.append)
    return events


def weights(job: Job) -> dict[str, torch.Tensor]:
    return tcformer.load_model(Path(job.store) / checkpoint.FINAL / WEIGHTS).state_dict()


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
    assert all(set(row.momentary) == {"images_per_second", "replaced_images"} for row in rows if "loss" in row.values)
    assert [{"step": row.step, "epoch": row.epoch, **row.values} for row in rows] == history(job)


def test_the_logged_learning_rate_is_the_optimisers(job: Job, undisturbed: list[Event]) -> None:
    rates = [event.values["lr"] for event in undisturbed if isinstance(event, Row) and "lr" in event.values]
    chosen = job.training.optimizer
    assert rates[0] == pytest.approx(chosen.warmup_lr) and max(rates) < chosen.lr and rates[-1] < rates[3]


class DriverGone(Exception):
    """The driver is gone."""


@pytest.mark.parametrize("step", [2, 4])
def test_a_training_that_is_cut_and_resumed_gives_the_same_bits(
    job: Job, undisturbed: list[Event], step: int, tmp_path: Path
) -> None:
    other = replace(job, store=str(tmp_path / "store"))

    def stop(event: Event) -> None:
        if event == CheckpointSaved(step):
            raise DriverGone

    with pytest.raises(DriverGone):
        train_locally(other, stop)
    events: list[Event] = []
    train_locally(other, events.append)
    assert isinstance(events[0], Started) and events[0].step == step
    assert history(other) == history(job)
    assert all(torch.equal(value, weights(job)[name]) for name, value in weights(other).items())


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

    def stop(event: Event) -> None:
        if event == CheckpointSaved(4):
            raise DriverGone

    with pytest.raises(DriverGone):
        train_locally(other, stop)
    (tmp_path / "store" / checkpoint.folder_name(4) / "state.pt").write_bytes(b"damaged")
    events: list[Event] = []
    train_locally(other, events.append)
    assert isinstance(events[0], Note) and "step-00000004 is not used: state.pt was altered" in events[0].text
    assert isinstance(events[1], Started) and events[1].step == 2
    assert history(other) == history(job)


def test_loader_processes_change_no_bit(job: Job, undisturbed: list[Event], tmp_path: Path) -> None:
    """They also serve the validations."""
    other = replace(job, store=str(tmp_path / "store"), loader_processes=1)
    train_locally(other, lambda event: None)
    assert history(other) == history(job)


def test_the_validation_set_is_read_once(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tcformer.tasks.face.task import FaceTask

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


def test_a_loss_that_is_not_finite_ends_it_with_one_sentence(job: Job, tmp_path: Path) -> None:
    optimizer = job.training.optimizer.model_copy(update={"lr": 1e30, "warmup_steps": 0, "clip_norm": None})
    other = replace(
        job, store=str(tmp_path / "store"), training=job.training.model_copy(update={"optimizer": optimizer})
    )
    with pytest.raises(UserError, match=r"the loss is .* at step \d: lower the learning rate"):
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

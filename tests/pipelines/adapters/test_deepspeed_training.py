"""The whole training loop with DeepSpeed in one and two workers, without Ray, for each ZeRO stage: averaged, best and
resumed weights, also on another number of workers, and steps that are not finite."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file
from torch import Tensor

from pipelines.adapters.deepspeed import DeepSpeedEngine, deepspeed_config, start_deepspeed
from pipelines.layout import WEIGHTS
from pipelines.training import checkpoint
from pipelines.training.engine import EngineOptions
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started
from pipelines.training.job import Job
from pipelines.training.link import LocalLink
from pipelines.training.loop import HISTORY, train
from pipelines.training.state import OptimizerState
from tcformer.models import Network
from tests.small import face_job

WORKERS, STAGES = 2, (0, 1, 2, 3)

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


def never(step: int) -> bool:
    """The training is not stopped."""
    return False


def dividing_all_weights(*arguments: Any) -> dict[str, Any]:
    """DeepSpeed's parameters: by itself, ZeRO 3 divides only weights of more than 100,000 numbers."""
    config = deepspeed_config(*arguments)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


@contextmanager
def group(rank: int, workers: int, meeting_point: str) -> Iterator[None]:
    """This process is one of `workers`."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = torch.distributed.FileStore(meeting_point, workers)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    with patch("pipelines.adapters.deepspeed.deepspeed_config", dividing_all_weights):
        yield
    torch.distributed.destroy_process_group()


def work(rank: int, meeting_point: str, jobs: list[Job]) -> None:
    """Train each job, then train it again in another store from a copy of its second checkpoint."""
    with group(rank, WORKERS, meeting_point):
        train_and_resume(jobs)


def train_and_resume(jobs: list[Job]) -> None:
    for job in jobs:
        resumed = replace(job, store=f"{job.store}-resumed")

        def copy_checkpoint(event: Event, job: Job = job, resumed: Job = resumed) -> None:
            if event == CheckpointSaved(4):
                name = checkpoint.folder_name(4)
                shutil.copytree(Path(job.store) / name, Path(resumed.store) / name)

        def check_start(event: Event) -> None:
            assert not isinstance(event, Started) or event.step == 4

        train(job, start_deepspeed, LocalLink(copy_checkpoint, never))
        train(resumed, start_deepspeed, LocalLink(check_start, never))


def final(job: Job, name: str) -> Path:
    return Path(job.store) / checkpoint.FINAL / name


def jobs_of(folder: Path, changes: dict[str, object]) -> list[Job]:
    """A job for each ZeRO stage."""
    jobs: list[Job] = []
    for stage in STAGES:
        data = jobs[0].data if jobs else None
        job = face_job(folder, data, training__zero_stage=stage, **changes)
        jobs.append(replace(job, store=str(folder / f"stage-{stage}")))
    return jobs


def test_every_zero_stage_averages_keeps_and_resumes_the_same_weights(tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "training__validate_every": 1,
        "training__ema_decay": 0.5,
        "training__keep": "best",
        "training__optimizer__layer_decay": 0.75,
        "task__neck": "deconv",  # has batch normalisation, whose statistics differ between workers
    }
    jobs = jobs_of(tmp_path, changes)
    torch.multiprocessing.spawn(work, (str(tmp_path / "meeting-point"), jobs), WORKERS)
    histories = [json.loads(final(job, HISTORY).read_text()) for job in jobs]
    for job, rows in zip(jobs, histories, strict=True):
        assert [row["step"] for row in rows if "val_nme" in row] == [2, 4, 6]
        resumed = replace(job, store=f"{job.store}-resumed")
        assert json.loads(final(resumed, HISTORY).read_text()) == rows
        assert final(resumed, WEIGHTS).read_bytes() == final(job, WEIGHTS).read_bytes()
    for rows in histories[1:]:
        for row, first in zip(rows, histories[0], strict=True):
            assert row == pytest.approx(first, rel=1e-3)


class CheckedEngine(DeepSpeedEngine):
    """After it has loaded a state, its own state is that one, bit by bit."""

    def load(self, weights: dict[str, Tensor], optimizer: OptimizerState) -> None:
        super().load(weights, optimizer)
        self.gather()
        assert all(torch.equal(value, weights[name]) for name, value in self.whole.state_dict().items())
        own = self.optimizer_state()
        assert own.steps == optimizer.steps and own.schedule == optimizer.schedule
        assert set(own.steps.values()) == {4}
        if torch.distributed.get_rank() == 0:
            assert own.moments.keys() == optimizer.moments.keys()
            assert all(torch.equal(value, optimizer.moments[name]) for name, value in own.moments.items())
            assert sum(bool(value.any()) for value in own.moments.values()) > len(own.moments) / 2


def start_checked(model: Network, options: EngineOptions) -> CheckedEngine:
    engine = start_deepspeed(model, options)
    return CheckedEngine(engine._wrapped, engine._copy)


def interrupt_or_resume(
    rank: int, workers: int, meeting_point: str, interrupted: list[Job], resumed: list[Job]
) -> None:
    """Train the first jobs up to step 4, and the other ones from there to the end."""
    with group(rank, workers, meeting_point):
        for job in interrupted:
            train(job, start_deepspeed, LocalLink(lambda event: None, lambda step: step == 4))
        for job in resumed:
            events: list[Event] = []
            train(job, start_checked, LocalLink(events.append, never))
            if rank == 0:
                others = WORKERS + 1 - workers
                assert any(
                    isinstance(event, Note) and f"number of workers, {workers} after {others}:" in event.text
                    for event in events
                )
                assert any(isinstance(event, Started) and event.step == 4 for event in events)


def test_another_number_of_workers_resumes_every_zero_stage(tmp_path: Path) -> None:
    """From two workers to one and from one to two, in the same stage and in another one."""
    changes: dict[str, object] = {"training__log_every": 3, "training__ema_decay": 0.5}
    jobs = jobs_of(tmp_path, changes)

    def begun_by(workers: int) -> list[Job]:
        return [replace(job, store=f"{job.store}-of-{workers}") for job in jobs]

    def continued_from(workers: int) -> list[Job]:
        """The same stage, and the next one, from copies of the checkpoints."""
        found = []
        for number, job in enumerate(begun_by(workers)):
            for shift in (0, 1):
                shutil.copytree(job.store, f"{job.store}-{shift}")
                found.append(replace(jobs[(number + shift) % len(jobs)], store=f"{job.store}-{shift}"))
        return found

    def run(workers: int, name: str, begin: list[Job], resume: list[Job]) -> None:
        arguments = (workers, str(tmp_path / name), begin, resume)
        torch.multiprocessing.spawn(interrupt_or_resume, arguments, workers)

    run(2, "first", begun_by(2), [])
    from_two = continued_from(2)
    run(1, "second", begun_by(1), from_two)
    from_one = continued_from(1)
    run(2, "third", [], from_one)
    rows = [json.loads(final(job, HISTORY).read_text()) for job in (*from_two, *from_one)]
    weights = [load_file(final(job, WEIGHTS)) for job in (*from_two, *from_one)]
    assert len(rows) == 16
    for other_rows, other_weights in zip(rows[1:], weights[1:], strict=True):
        for row, first in zip(other_rows, rows[0], strict=True):
            assert row == pytest.approx(first, rel=1e-3)
        for name, value in other_weights.items():
            torch.testing.assert_close(value, weights[0][name], rtol=1e-3, atol=2e-5)


BAD_STEP = 2


class FaultyEngine(DeepSpeedEngine):
    """The loss of rank 1 in the first micro batch of a step is not finite: that step changes nothing on any worker."""

    factor = float("nan")
    micro_batches = 0
    updates: list[bool]

    def parameters(self) -> dict[str, Tensor]:
        self.gather()
        return {name: value.detach().clone() for name, value in self.whole.named_parameters()}

    def backward(self, loss: Tensor) -> None:
        if torch.distributed.get_rank() == 1 and self.micro_batches == 2 * BAD_STEP:
            loss.data.mul_(self.factor)
        super().backward(loss)

    def step(self) -> bool:
        before = self.parameters()
        old = self.optimizer_state()
        old_moments = {name: value.clone() for name, value in old.moments.items()}
        is_applied = super().step()
        self.micro_batches += 1
        if self.micro_batches % 2:
            return is_applied
        is_bad = self.micro_batches == 2 * BAD_STEP + 2
        new = self.optimizer_state()
        assert is_applied != is_bad
        assert (new.steps == old.steps) == (is_bad and bool(old.steps))
        parameters = self.parameters()
        assert all(torch.equal(value, before[name]) for name, value in parameters.items()) == is_bad
        assert all(bool(value.isfinite().all()) for value in (*parameters.values(), *new.moments.values()))
        if torch.distributed.get_rank() == 0 and old_moments:
            same = all(torch.equal(value, old_moments[name]) for name, value in new.moments.items())
            assert same == is_bad
        assert self._wrapped.lr_scheduler.last_epoch == self.micro_batches // 2, "the schedule goes on"
        return is_applied


def train_with_faults(rank: int, meeting_point: str, jobs: list[Job]) -> None:
    with group(rank, WORKERS, meeting_point):
        for job, factor in zip(jobs, itertools.cycle((float("nan"), float("inf"))), strict=False):

            def start(model: Network, options: EngineOptions, factor: float = factor) -> FaultyEngine:
                started = start_deepspeed(model, options)
                engine = FaultyEngine(started._wrapped, started._copy)
                engine.factor = factor
                return engine

            events: list[Event] = []
            train(job, start, LocalLink(events.append, never))
            if rank == 0:
                rows = [event for event in events if isinstance(event, Row) and "loss" in event.values]
                steps = [(row.step, row.momentary["skipped_steps"]) for row in rows]
                assert steps == [(1, 0), (2, 0), (4, 1), (5, 1), (6, 1)]
                assert any(
                    isinstance(event, Note) and "step 3: the loss is not finite" in event.text for event in events
                )


def test_a_step_that_is_not_finite_on_one_worker_is_skipped_on_all(tmp_path: Path) -> None:
    jobs = []
    for name, clip_norm in (("clipped", 1.0), ("not-clipped", None)):
        (tmp_path / name).mkdir()
        changes: dict[str, object] = {"training__micro_batch": 1, "training__optimizer__clip_norm": clip_norm}
        jobs += jobs_of(tmp_path / name, changes)[:: 1 if clip_norm else 3]  # stages 0 and 3 show that it is not needed
    torch.multiprocessing.spawn(train_with_faults, (str(tmp_path / "meeting-point"), jobs), WORKERS)

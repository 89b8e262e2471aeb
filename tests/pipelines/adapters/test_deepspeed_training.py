"""The whole training loop with DeepSpeed in two workers, without Ray: averaged, best and resumed weights, for each ZeRO
stage."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed

from pipelines.adapters.deepspeed import start_deepspeed
from pipelines.datasets.location import DataLocation
from pipelines.layout import WEIGHTS
from pipelines.training import checkpoint
from pipelines.training.events import CheckpointSaved, Event, Started
from pipelines.training.job import Job
from pipelines.training.link import LocalLink
from pipelines.training.loop import HISTORY, train
from tests.small import generate, parameters

WORKERS, STAGES = 2, (0, 1, 2)

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]


def never(step: int) -> bool:
    """The training is not stopped."""
    return False


def work(rank: int, meeting_point: str, jobs: list[Job]) -> None:
    """Train each job, then train it again in another store from a copy of its second checkpoint."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORKERS), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = torch.distributed.FileStore(meeting_point, WORKERS)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=WORKERS)
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
    torch.distributed.destroy_process_group()


def final(job: Job, name: str) -> Path:
    return Path(job.store) / checkpoint.FINAL / name


def test_every_zero_stage_averages_keeps_and_resumes_the_same_weights(tmp_path: Path) -> None:
    jobs = []
    for stage in STAGES:
        recipe = parameters(
            tmp_path,
            finetune__face__training__epochs=3,
            finetune__face__training__checkpoint_every=2,
            finetune__face__training__validate_every=1,
            finetune__face__training__zero_stage=stage,
            finetune__face__training__ema_decay=0.5,
            finetune__face__training__keep="best",
            finetune__face__training__optimizer__layer_decay=0.75,
            finetune__face__task__input_size=[32, 32],
            finetune__face__task__neck="deconv",  # has batch normalisation, whose statistics differ between workers
        )
        if not jobs:
            data = DataLocation(str(generate("face", recipe, tmp_path)))
        jobs.append(
            Job(
                name="finetune-face",
                key="finetune-face-test",
                task=recipe.sample.spec_of("face"),
                data=data,
                training=recipe.sample.training_of("face").training,
                store=str(tmp_path / f"stage-{stage}"),
                initial=None,
                loader_processes=0,
            )
        )
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

"""A training in this very process, without Ray and DeepSpeed: so that a debugger can step through it."""

from collections.abc import Callable

import torch.distributed

from pipelines.training.engine import TorchEngine
from pipelines.training.events import Event
from pipelines.training.job import Job
from pipelines.training.link import LocalLink
from pipelines.training.loop import train


def train_locally(
    job: Job, on_event: Callable[[Event], None], stops_before: Callable[[int], bool] = lambda step: False
) -> None:
    """Train `job` as a group of one worker; exceptions leave as they are.

    Args:
        job: what to train.
        on_event: receives the events.
        stops_before: the step -> whether to take a checkpoint and stop before it.
    """
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        train(job, TorchEngine, LocalLink(on_event, stops_before))
    finally:
        torch.distributed.destroy_process_group()

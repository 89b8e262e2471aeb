"""A training in this very process, without Ray and DeepSpeed: so that a debugger can step through it."""

import torch.distributed

from pipelines.training.engine import TorchEngine
from pipelines.training.job import Job
from pipelines.training.loop import Send, train


def train_locally(job: Job, send: Send) -> None:
    """Train `job` as a group of one worker; exceptions leave as they are."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        train(job, TorchEngine, send)
    finally:
        torch.distributed.destroy_process_group()

"""The learning rate as a function of the step."""

import math

import torch

from pipelines.params import Optimizer


def learning_rate(step: int, optimizer: Optimizer, steps: int, steps_per_epoch: float) -> float:
    """Learning rate of optimiser step `step` (from 0) of `steps`: a linear warm-up, then the schedule.

    Args:
        step: number of the step, from 0.
        optimizer: schedule, warm-up and rates.
        steps: of the whole training.
        steps_per_epoch: by which the milestones of the step schedule are placed.
    """
    if optimizer.schedule == "cosine":
        progress = min(step / max(steps, 1), 1.0)
        rate = optimizer.final_lr + (optimizer.lr - optimizer.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    elif optimizer.schedule == "step":
        rate = optimizer.lr * 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in optimizer.milestones)
    else:
        rate = optimizer.lr
    if step < optimizer.warmup_steps:
        rate = optimizer.warmup_lr + (rate - optimizer.warmup_lr) * step / optimizer.warmup_steps
    return rate


def scheduler(
    wrapped: torch.optim.Optimizer, optimizer: Optimizer, steps: int, steps_per_epoch: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """PyTorch's scheduler that sets `wrapped`'s learning rate to `learning_rate` of each step.

    A group that starts with a fraction of `optimizer.lr` (layer-wise decay) has this fraction in each step.
    """
    return torch.optim.lr_scheduler.LambdaLR(
        wrapped, lambda step: learning_rate(step, optimizer, steps, steps_per_epoch) / optimizer.lr
    )

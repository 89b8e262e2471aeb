"""The time of optimiser steps: from a short measured run or a given speed, for any number of workers."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.params import Training
from pipelines.planning.memory import input_size, network_of, samples_per_group
from pipelines.training.device import autocast, this_device
from pipelines.training.optimizer import build_optimizer
from pipelines.training.sampling import BatchPlan
from tcformer.tasks import TaskSpec

USEFUL = 0.5  # least share of its speed alone that a GPU must keep
_REPEATS = 3  # timed steps of each size
_LONGEST_STEP = 4.0  # seconds; smaller batches are measured where a micro batch takes longer


@dataclass(frozen=True)
class StepTime:
    """The time that a worker needs for a micro batch: `fixed + images * image`, seconds.

    Attributes:
        fixed: for launching operations, whatever the size of the batch.
        image: for each image.
    """

    fixed: float
    image: float

    @classmethod
    def of_speed(cls, images_per_second: float, images: int, fixed: float) -> StepTime:
        """From the speed of one worker with micro batches of `images`, and an assumed fixed time."""
        whole = images / images_per_second
        fixed = min(fixed, whole)
        return cls(fixed, (whole - fixed) / images)

    def step(self, batch: BatchPlan, gradients: float, network: float) -> float:
        """Seconds of an optimiser step.

        Args:
            batch: how the global batch is divided.
            gradients: bytes that the workers average at the end of a step, in a ring.
            network: bytes a second between two workers.
        """
        exchange = 2 * (batch.workers - 1) / batch.workers * gradients / network
        return batch.accumulation * (self.fixed + batch.micro_batch * self.image) + exchange


def divided(training: Training, workers: int, group: int) -> BatchPlan:
    """The batch among as many of `workers` as can share it evenly."""
    usable = max(n for n in _divisors(training.global_batch, group) if n <= workers)
    return BatchPlan.divide(training.global_batch, training.micro_batch, usable, group)


def _divisors(global_batch: int, group: int) -> list[int]:
    return [n for n in range(1, global_batch // group + 1) if global_batch % (n * group) == 0]


def efficiency(
    times: StepTime, training: Training, workers: int, group: int, gradients: float, network: float
) -> float:
    """The speed of a GPU among `workers`, relative to its speed alone."""
    alone, shared = (BatchPlan.divide(training.global_batch, training.micro_batch, n, group) for n in (1, workers))
    return times.step(alone, gradients, network) / (workers * times.step(shared, gradients, network))


def most_useful_workers(
    times: StepTime | None, training: Training, group: int, gradients: float, network: float
) -> int:
    """The largest number of workers, among which the batch can be divided, that is of use.

    Where the times are known, each of them keeps half of its speed; else each has at least one whole micro batch.
    """
    numbers = _divisors(training.global_batch, group)
    if times is None:
        return max(n for n in numbers if n == 1 or training.global_batch // n >= training.micro_batch)
    return max(n for n in numbers if n == 1 or efficiency(times, training, n, group, gradients, network) >= USEFUL)


def measure(spec: TaskSpec, training: Training) -> StepTime:
    """Time forward pass, backward pass and optimiser of a task's network on this machine's device.

    The images are random numbers and the loss is a mean square, so that no data are needed. Where a micro batch takes
    too long, as that of a large network on a CPU, smaller ones are measured.
    """
    device, group = this_device(), samples_per_group(spec)
    model = network_of(spec, device)
    optimizer = build_optimizer(model, training.optimizer)
    height, width = input_size(spec)

    def step(images: int) -> float:
        batch = torch.randn(images, 3, height, width, device=device)
        _wait(device)
        started = time.perf_counter()
        with autocast(training, device):
            output = model.train()(batch)
        outputs: tuple[Tensor, ...] = output if isinstance(output, tuple) else (output,)
        torch.stack([value.float().square().mean() for value in outputs]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        return time.perf_counter() - started

    least = max(group, 2)  # batch normalisation needs two
    step(least)
    fitting = int(least * _LONGEST_STEP / step(least))
    large = max(least, min(training.micro_batch, fitting))
    small = max(least, large // 4)
    seconds = {images: statistics.median(step(images) for _ in range(_REPEATS)) for images in (small, large)}
    if large == small:
        return StepTime(0.0, seconds[large] / large)
    slope = (seconds[large] - seconds[small]) / (large - small)
    image = min(max(slope, 0.0), seconds[large] / large)
    return StepTime(seconds[large] - large * image, image)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Means of the losses between two rows of the history, and the speed."""

import time

import torch
import torch.distributed
from torch import Tensor


class LossMeter:
    """Mean of the losses since the last row, over micro batches and workers, and the training speed.

    Args:
        device: where the losses are summed, so that a step does not wait for them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.restart_clock(None)

    def restart_clock(self, step: int | None) -> None:
        """Start measuring the speed at `step` anew: validations and checkpoints are not training time."""
        self._clock, self._step = time.perf_counter(), step

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take in the scalars of a micro batch."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value.detach().float()
        self._count += 1

    @property
    def is_empty(self) -> bool:
        """Whether there was no loss since the last row, because all steps were skipped."""
        return not self._count

    def state(self) -> dict[str, float]:
        """The sums since the last row, and their count as "count"."""
        return {**{name: value.item() for name, value in self._sums.items()}, "count": self._count}

    def load(self, everyone: list[dict[str, float]], rank: int, scale: float = 1.0) -> None:
        """Go on from what `state` returned on each worker.

        A worker takes its own sums, and the mean of all if their number is another one now.

        Args:
            everyone: the states by rank.
            rank: of this worker.
            scale: micro batches that a worker has in a step now, divided by those that it had before; used if the
                number of workers is another one.
        """
        same = len(everyone) == torch.distributed.get_world_size()
        mean = {name: scale * sum(part[name] for part in everyone) / len(everyone) for name in everyone[0]}
        sums = dict(everyone[rank] if same else mean)
        self._count = round(sums.pop("count"))
        self._sums = {name: torch.tensor(value, device=self._device) for name, value in sums.items()}

    def mean_over_workers(self) -> dict[str, float]:
        """Means since the last call, the same on every worker; every worker must call it."""
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] / self._count for name in names])
        torch.distributed.all_reduce(means)
        means /= torch.distributed.get_world_size()
        self._sums, self._count = {}, 0
        return dict(zip(names, means.tolist()))

    def images_per_second(self, global_batch: int, step: int) -> float:
        """Speed since the last call or restart; 0 for the first stretch, which includes warming up."""
        now = time.perf_counter()
        speed = 0.0 if self._step is None else (step - self._step) * global_batch / (now - self._clock)
        self._clock, self._step = now, step
        return speed

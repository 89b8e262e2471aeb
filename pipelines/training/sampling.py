"""Which sample reaches which worker in which step.

The order is a pure function of (seed, epoch) and a sample's augmentation of (seed, epoch, index), so the same samples,
augmented the same way, make up optimiser step s for any number of workers and loader processes, and a training resumes
at step s by computing it, with nothing saved.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tcformer.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """How the global batch is divided: `global_batch = workers * accumulation * micro_batch`."""

    global_batch: int
    micro_batch: int
    accumulation: int
    workers: int

    @classmethod
    def divide(cls, global_batch: int, largest_micro_batch: int, workers: int, group: int = 1) -> "BatchPlan":
        """The largest micro batch that divides evenly.

        Args:
            global_batch: samples of an optimiser step, over all workers.
            largest_micro_batch: most samples that a worker processes at once.
            workers: training processes.
            group: samples that belong together, such as the two of a mixup pair; a micro batch holds whole groups.

        Raises:
            UserError: `global_batch` is no multiple of the workers and their groups.
        """
        if global_batch % (workers * group):
            pairs = f" and the groups of {group} samples that mixup and CutMix mix" if group > 1 else ""
            raise UserError(
                f"training.global_batch = {global_batch} cannot be shared by {workers} workers{pairs}: choose a "
                f"multiple of {workers * group}, or another cluster.workers"
            )
        if largest_micro_batch < group:
            raise UserError(
                f"training.micro_batch = {largest_micro_batch} holds no group of {group} samples that mixup and CutMix "
                f"mix: choose at least {group}"
            )
        share = global_batch // workers
        sizes = range(min(largest_micro_batch, share), 0, -1)
        micro = next(size for size in sizes if share % size == 0 and size % group == 0)
        return cls(global_batch, micro, share // micro, workers)

    def positions(self, step: int, rank: int) -> Iterator[range]:
        """Positions in the endless sample order of this rank's micro batches of `step`, one range each."""
        for part in range(self.accumulation):
            start = step * self.global_batch + (part * self.workers + rank) * self.micro_batch
            yield range(start, start + self.micro_batch)


def usable_workers(global_batch: int, fewest: int, most: int, group: int = 1) -> list[int]:
    """Numbers of workers that can share a global batch, in ascending order.

    Args:
        global_batch: samples of an optimiser step, over all workers.
        fewest: smallest number to consider.
        most: largest number to consider.
        group: see `BatchPlan.divide`.

    Raises:
        UserError: there is none.
    """
    counts = [workers for workers in range(fewest, most + 1) if global_batch % (workers * group) == 0]
    if not counts and fewest == most:
        BatchPlan.divide(global_batch, global_batch, fewest, group)  # raises
    if not counts:
        pairs = f" in groups of {group}" if group > 1 else ""
        raise UserError(
            f"training.global_batch = {global_batch} cannot be shared{pairs} by any number of workers from {fewest} to "
            f"{most}: choose another batch, or a larger range of cluster.workers"
        )
    return counts


def steps_in(epochs: int, samples: int, global_batch: int) -> int:
    """Optimiser steps of a training, at least one unless there are no epochs.

    The last samples of an epoch share a step with the next epoch's.
    """
    return max(1, epochs * samples // global_batch) if epochs else 0


class SampleOrder:
    """Position in the endless order -> (epoch, index): every epoch is a permutation of the dataset."""

    def __init__(self, samples: int, seed: int) -> None:
        if samples < 1:
            raise UserError("the training set is empty: prepare it with at least one image")
        self._samples = samples
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self._samples)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._samples)
            self._epoch = epoch
        return epoch, int(self._order[offset])

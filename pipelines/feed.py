"""Which sample reaches which worker in which step.

The order is a pure function of (seed, epoch) and a sample's augmentation of (seed, epoch, index), so the same samples,
augmented the same way, make up optimiser step s for any number of workers and loader processes, and a training resumes
at step s by computing it, with nothing saved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tcformer.data import collate
from tcformer.errors import UserError
from tcformer.tasks.base import Batch, Dataset


@dataclass(frozen=True)
class BatchPlan:
    """How the global batch is divided: ``global_batch = workers * accumulation * micro_batch``."""

    global_batch: int
    micro_batch: int
    accumulation: int
    workers: int

    @classmethod
    def divide(cls, global_batch: int, largest_micro_batch: int, workers: int) -> "BatchPlan":
        """The largest micro batch that divides evenly.

        Raises:
            UserError: ``global_batch`` is no multiple of ``workers``.
        """
        if global_batch % workers:
            raise UserError(
                f"training.global_batch = {global_batch} cannot be shared by {workers} workers: choose a multiple of "
                f"{workers}, or another cluster.workers"
            )
        share = global_batch // workers
        micro = next(size for size in range(min(largest_micro_batch, share), 0, -1) if share % size == 0)
        return cls(global_batch, micro, share // micro, workers)

    def positions(self, step: int, rank: int) -> Iterator[range]:
        """Positions in the endless sample order of this rank's micro batches of ``step``, one range each."""
        for part in range(self.accumulation):
            start = step * self.global_batch + (part * self.workers + rank) * self.micro_batch
            yield range(start, start + self.micro_batch)


def steps_in(epochs: int, samples: int, global_batch: int) -> int:
    """Optimiser steps of a training, at least one unless there are no epochs.

    The last samples of an epoch share a step with the next epoch's.
    """
    return max(1, epochs * samples // global_batch) if epochs else 0


class SampleOrder:
    """Position in the endless order -> (epoch, index): every epoch is a permutation of the data set."""

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


class _MicroBatches(torch.utils.data.Dataset[Batch]):
    """Micro batch number -> collated batch; one item is one micro batch, so a loader process works on it whole."""

    def __init__(self, data: Dataset, plan: BatchPlan, rank: int, seed: int, first_step: int, steps: int) -> None:
        self._data, self._plan, self._rank, self._seed = data, plan, rank, seed
        self._first_step, self._steps = first_step, steps
        self._order = SampleOrder(len(data), seed)

    def __len__(self) -> int:
        return (self._steps - self._first_step) * self._plan.accumulation

    def __getitem__(self, number: int) -> Batch:
        step, part = divmod(number, self._plan.accumulation)
        positions = list(self._plan.positions(self._first_step + step, self._rank))[part]
        samples = []
        for position in positions:
            epoch, index = self._order[position]
            samples.append(self._data.sample(index, np.random.default_rng((self._seed, epoch, index))))
        return _collate(self._data, samples)


def training_batches(
    data: Dataset, plan: BatchPlan, rank: int, seed: int, first_step: int, steps: int, processes: int
) -> Iterator[Batch]:
    """This rank's micro batches of steps ``first_step`` to ``steps - 1``, ``plan.accumulation`` a step."""
    micro_batches = _MicroBatches(data, plan, rank, seed, first_step, steps)
    return iter(_loader(micro_batches, processes))


class _Shard(torch.utils.data.Dataset[Batch]):
    """The validation samples rank, rank + workers, ... without augmentation, in batches."""

    def __init__(self, data: Dataset, rank: int, workers: int, batch: int) -> None:
        self._data = data
        indices = list(range(rank, len(data), workers))
        self._batches = [indices[start : start + batch] for start in range(0, len(indices), batch)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        samples = [self._data.sample(index, None) for index in self._batches[number]]
        return collate(samples)


def _collate(data: Dataset, samples: list[dict[str, Any]]) -> Batch:
    own = getattr(data, "collate", None)  # a data set that mixes images does it here
    return own(samples) if own else collate(samples)


def validation_batches(data: Dataset, rank: int, workers: int, batch: int, processes: int = 0) -> Iterator[Batch]:
    """This rank's share of ``data``, without augmentation, each sample once."""
    return iter(_loader(_Shard(data, rank, workers, batch), processes))


def _loader(batches: torch.utils.data.Dataset[Batch], processes: int) -> Any:
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        num_workers=processes,
        prefetch_factor=4 if processes else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        # Loader processes must not inherit the threads and locks of a process that trains.
        multiprocessing_context="forkserver" if processes else None,
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)

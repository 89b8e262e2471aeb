"""Which sample reaches which worker in which step.

The order is a pure function of (seed, epoch) and a sample's augmentation of (seed, epoch, index), so the same samples,
augmented the same way, make up optimiser step s for any number of workers and loader processes, and a training resumes
at step s by computing it, with nothing saved.

A training image that cannot be decoded is replaced by another sample, which follows from (seed, epoch, index) too. In a
validation it is an error, since the measure would be that of another set.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from tcformer.data import BrokenImage, collate
from tcformer.errors import UserError
from tcformer.tasks.base import Batch, Dataset

REPLACEMENTS = 10  # samples tried in place of a broken one
LARGEST_BROKEN_SHARE = 1e-3  # of the training set's images
MOST_TOLD = 10


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


@dataclass
class BrokenImages:
    """Training images that cannot be decoded, and for how many samples others stood in."""

    reasons: dict[str, str] = field(default_factory=dict)  # by file
    replaced: int = 0

    def add(self, others: "BrokenImages") -> list[str]:
        """Take in what others found; returns what is wrong with the files that were not known yet."""
        new = {path: reason for path, reason in sorted(others.reasons.items()) if path not in self.reasons}
        self.reasons |= new
        self.replaced += others.replaced
        return list(new.values())

    def clear(self) -> None:
        """Forget everything."""
        self.reasons, self.replaced = {}, 0

    def check(self, images: int) -> None:
        """Raise UserError if more than 0.1 % of a training set's ``images`` are broken. One may be in any set."""
        allowed = max(1, int(images * LARGEST_BROKEN_SHARE))
        if len(self.reasons) > allowed:
            first = sorted(self.reasons)[:MOST_TOLD]
            raise UserError(
                f"{len(self.reasons)} of the training set's {images} images cannot be decoded, of which at most "
                f"{allowed} may be replaced by others (0.1 %, at least one): fetch these files again: "
                f"{', '.join(first)}{', ...' if len(self.reasons) > len(first) else ''}"
            )


class _Loaded(NamedTuple):
    """What a loader process hands over. An error travels in it, as PyTorch would wrap a traceback around it."""

    batch: Batch
    broken: BrokenImages
    error: UserError | None = None


class _MicroBatches(torch.utils.data.Dataset[_Loaded]):
    """Micro batch number -> collated batch; one item is one micro batch, so a loader process works on it whole."""

    def __init__(self, data: Dataset, plan: BatchPlan, rank: int, seed: int, first_step: int, steps: int) -> None:
        self._data, self._plan, self._rank, self._seed = data, plan, rank, seed
        self._first_step, self._steps = first_step, steps
        self._order = SampleOrder(len(data), seed)

    def __len__(self) -> int:
        return (self._steps - self._first_step) * self._plan.accumulation

    def __getitem__(self, number: int) -> _Loaded:
        step, part = divmod(number, self._plan.accumulation)
        positions = list(self._plan.positions(self._first_step + step, self._rank))[part]
        broken = BrokenImages()
        try:
            samples = [self._sample(*self._order[position], broken) for position in positions]
            return _Loaded(_collate(self._data, samples), broken)
        except UserError as error:
            return _Loaded({}, broken, error)

    def _sample(self, epoch: int, index: int, broken: BrokenImages) -> dict[str, Any]:
        """Sample ``index`` as augmented in ``epoch``, or another if its image is broken; adds to ``broken``."""
        identity = (self._seed, epoch, index)
        try:
            return self._data.sample(index, np.random.default_rng(identity))
        except BrokenImage as error:
            broken.reasons[error.path] = str(error)
        size = len(self._data)
        others = np.random.default_rng((*identity, 1)).choice(size, min(REPLACEMENTS, size), replace=False)
        for attempt, other in enumerate(others.tolist(), 2):
            try:
                sample = self._data.sample(other, np.random.default_rng((*identity, attempt)))
            except BrokenImage as error:
                broken.reasons[error.path] = str(error)
            else:
                broken.replaced += 1
                return sample
        raise UserError(
            f"no image in place of sample {index} of the training set can be decoded, of {len(others)} tried: check "
            f"the data set's files; the first: {next(iter(broken.reasons.values()))}"
        )


def training_batches(
    data: Dataset,
    plan: BatchPlan,
    rank: int,
    seed: int,
    first_step: int,
    steps: int,
    processes: int,
    broken: BrokenImages | None = None,
) -> Iterator[Batch]:
    """This rank's micro batches of steps ``first_step`` to ``steps - 1``, ``plan.accumulation`` a step.

    Images that had to be replaced are added to ``broken`` as their batches are taken.

    Raises:
        UserError: an image is missing, or no image can be decoded.
    """
    for loaded in _loader(_MicroBatches(data, plan, rank, seed, first_step, steps), processes):
        if loaded.error:
            raise loaded.error
        if broken is not None:
            broken.add(loaded.broken)
        yield loaded.batch


class _Shard(torch.utils.data.Dataset[_Loaded]):
    """The validation samples rank, rank + workers, ... without augmentation, in batches."""

    def __init__(self, data: Dataset, rank: int, workers: int, batch: int) -> None:
        self._data = data
        indices = list(range(rank, len(data), workers))
        self._batches = [indices[start : start + batch] for start in range(0, len(indices), batch)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> _Loaded:
        try:
            samples = [self._data.sample(index, None) for index in self._batches[number]]
            return _Loaded(collate(samples), BrokenImages())
        except UserError as error:
            return _Loaded({}, BrokenImages(), error)


def _collate(data: Dataset, samples: list[dict[str, Any]]) -> Batch:
    own = getattr(data, "collate", None)  # a data set that mixes images does it here
    return own(samples) if own else collate(samples)


def validation_batches(data: Dataset, rank: int, workers: int, batch: int, processes: int = 0) -> Iterator[Batch]:
    """This rank's share of ``data``, without augmentation, each sample once.

    Raises:
        UserError: an image is missing or cannot be decoded.
    """
    for loaded in _loader(_Shard(data, rank, workers, batch), processes):
        if loaded.error:
            raise loaded.error
        yield loaded.batch


def _loader(batches: torch.utils.data.Dataset[_Loaded], processes: int) -> Any:
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

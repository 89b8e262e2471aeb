"""Samples to batches: loader processes, and what happens with images that cannot be decoded.

A training image that cannot be decoded is replaced by another sample, which follows from (seed, epoch, index) as the
order does (`sampling.py`). In a validation it is an error, because the measure would be that of another set.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from pipelines.training.sampling import BatchPlan, SampleOrder
from tcformer.data import BrokenImage, collate
from tcformer.errors import UserError, listed
from tcformer.tasks.base import Batch, Dataset

REPLACEMENTS = 10  # samples tried in place of a broken one
LARGEST_BROKEN_SHARE = 1e-3  # of the training set's images


@dataclass
class BrokenImages:
    """Training images that cannot be decoded, and how many samples were replaced because of them."""

    reasons: dict[str, str] = field(default_factory=dict)  # by file
    replaced: int = 0

    def add(self, others: "BrokenImages") -> list[str]:
        """Add the broken images that another process found; returns the reasons of those that are new."""
        new = {path: reason for path, reason in sorted(others.reasons.items()) if path not in self.reasons}
        self.reasons |= new
        self.replaced += others.replaced
        return list(new.values())

    def clear(self) -> None:
        """Forget everything."""
        self.reasons, self.replaced = {}, 0

    def check(self, images: int) -> None:
        """Raise UserError if more than 0.1 % of a training set's `images` are broken. One may be in any set."""
        allowed = max(1, int(images * LARGEST_BROKEN_SHARE))
        if len(self.reasons) > allowed:
            raise UserError(
                f"{len(self.reasons)} of the training set's {images} images cannot be decoded, of which at most "
                f"{allowed} may be replaced by others (0.1 %, at least one): fetch these files again: "
                f"{listed(sorted(self.reasons))}"
            )


class _Loaded(NamedTuple):
    """What a loader process returns; an error is a value in it, because PyTorch would add a traceback to a message."""

    batch: Batch
    broken: BrokenImages
    error: UserError | None = None


class _MicroBatches(torch.utils.data.Dataset[_Loaded]):
    """Number of a micro batch -> collated batch: an item is a whole micro batch, which one loader process makes."""

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
        """The sample `index` as augmented in `epoch`, or another one if its image is broken; adds to `broken`."""
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
            f"the dataset's files; the first: {next(iter(broken.reasons.values()))}"
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
    """This rank's micro batches of steps `first_step` to `steps - 1`, `plan.accumulation` a step.

    Images that had to be replaced are added to `broken` as their batches are taken.

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
    own = getattr(data, "collate", None)  # a dataset that mixes images does it here
    return own(samples) if own else collate(samples)


def validation_batches(data: Dataset, rank: int, workers: int, batch: int, processes: int = 0) -> Iterator[Batch]:
    """This rank's share of `data`, without augmentation, each sample once.

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

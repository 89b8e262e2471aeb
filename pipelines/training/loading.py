"""Samples to batches: loader processes, and what happens with images that cannot be decoded.

A training image that cannot be decoded is replaced by another sample, which follows from (seed, epoch, index) as the
order does (`sampling.py`). In a validation it is an error, because the measure would be that of another set.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.training.sampling import BatchPlan, SampleOrder
from tcformer.data import BrokenImage, collate
from tcformer.errors import UserError, listed
from tcformer.tasks.base import Batch, Dataset

REPLACEMENTS = 10  # samples tried in place of a broken one
LARGEST_BROKEN_SHARE = 1e-3  # of the training set's images
LOADER_SECONDS = 300.0  # for a batch from a loader process; cluster.stall_timeout, which names no cause, is longer
SHARED_MEMORY = Path("/dev/shm")


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

    batch: Batch | dict[str, NDArray[Any]]  # tensors, or arrays if shared memory is full
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
            return _Loaded(_to_send(_collate(self._data, samples)), broken)
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
    note: Callable[[str], None] = print,
) -> Iterator[Batch]:
    """This rank's micro batches of steps `first_step` to `steps - 1`, `plan.accumulation` a step.

    Images that had to be replaced are added to `broken` as their batches are taken. `note` gets a sentence if shared
    memory is too small for batches.

    Raises:
        UserError: an image is missing, no image can be decoded, or a loader process ended or sends nothing.
    """
    for batch, found in _received(_MicroBatches(data, plan, rank, seed, first_step, steps), processes, note):
        if broken is not None:
            broken.add(found)
        yield batch


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
            return _Loaded(_to_send(collate(samples)), BrokenImages())
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
    for received, _ in _received(_Shard(data, rank, workers, batch), processes):
        yield received


def _to_send(batch: Batch) -> Batch | dict[str, NDArray[Any]]:
    """In a loader process: the batch in shared memory, or as arrays, which a pipe carries, if that is full.

    PyTorch would move the tensors later and in a thread, where an error loses the batch, so that the training waits
    for ever. Docker gives a container 64 MB of shared memory.
    """
    if torch.utils.data.get_worker_info() is None:
        return batch
    try:
        for tensor in batch.values():
            tensor.share_memory_()
    except RuntimeError:  # no space left on the device; the tensors that are there already are freed with the batch
        return {name: tensor.numpy() for name, tensor in batch.items()}
    return batch


def _received(
    batches: torch.utils.data.Dataset[_Loaded],
    processes: int,
    note: Callable[[str], None] = print,
) -> Iterator[tuple[Batch, BrokenImages]]:
    """The batches that `processes` loader processes make, or this process if there are none, and what is broken.

    Raises:
        UserError: an error in `batches`; or a loader process has ended, or sends nothing.
    """
    reported = False
    loader = iter(_loader(batches, processes))
    while True:
        try:
            loaded = next(loader, None)
        except RuntimeError as error:
            if "DataLoader" not in str(error) or not processes:  # PyTorch has no types for these errors
                raise
            raise UserError(_loader_failure(str(error), processes)) from None
        if loaded is None:
            return
        if loaded.error:
            raise loaded.error
        batch = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in loaded.batch.items()
        }
        if not reported and any(isinstance(value, np.ndarray) for value in loaded.batch.values()):
            reported = True
            note(f"{_shared_memory()} is too small for batches: they travel through pipes, which is slower")
        yield batch, loaded.broken


def _shared_memory() -> str:
    """The place of shared memory and how much of it is free, for a message."""
    if not SHARED_MEMORY.is_dir():
        return "shared memory"
    return f"{SHARED_MEMORY} ({shutil.disk_usage(SHARED_MEMORY).free / 1e6:.0f} MB free)"


def _loader_failure(reason: str, processes: int) -> str:
    """The message for a loader process that ended or sends nothing.

    Args:
        reason: PyTorch's message.
        processes: how many loader processes there are.
    """
    return (
        f"no batch came from the {processes} loader processes ({reason.splitlines()[0]}): expected one within "
        f"{LOADER_SECONDS:.0f} s; check whether the disk of the images answers, whether the system ended a process for "
        f"lack of memory, and whether {_shared_memory()} is large enough (Docker: --shm-size); "
        "cluster.loader_processes: 0 works without such processes"
    )


def _loader(batches: torch.utils.data.Dataset[_Loaded], processes: int) -> Any:
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        num_workers=processes,
        prefetch_factor=4 if processes else None,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_unchanged,
        worker_init_fn=_one_thread,
        timeout=LOADER_SECONDS if processes else 0,
        # Loader processes must not inherit the threads and locks of a process that trains.
        multiprocessing_context="forkserver" if processes else None,
    )


def _unchanged(loaded: Any) -> Any:
    """In place of PyTorch's function that would make tensors of arrays again."""
    return loaded


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)

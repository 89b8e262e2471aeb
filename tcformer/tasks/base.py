"""What the training and evaluation loops ask of a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from tcformer.models import Network

Batch: TypeAlias = Mapping[str, Tensor]
#: A module, or what wraps one (a DeepSpeed engine).
Model: TypeAlias = Callable[[Tensor], Tensor]


class Dataset(Protocol):
    """Samples by index.

    Optional members:
        collate(samples) -> Batch: used instead of `tcformer.data.collate`, with the samples in their order.
        samples_per_group: how many consecutive samples `collate` combines, as mixup does. Micro batches are multiples
            of it. 1 if it is absent.
        num_images: number of image files that the samples come from, if it is not the number of samples.
    """

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """One sample: numpy arrays and numbers, the same keys and shapes for every index.

        All randomness comes from `rng`; None means no augmentation.
        """
        ...


class Task(Protocol):
    """Model, data, loss and measure of one problem."""

    name: str

    def build_model(self) -> Network:
        """A freshly initialised network."""
        ...

    def train_set(self) -> Dataset:
        """The training samples."""
        ...

    def val_set(self) -> Dataset:
        """The samples on which training is watched."""
        ...

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """The scalar "loss" to minimise, and further detached scalars to log."""
        ...

    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch, named "<quantity>_sum", and "count", the number of samples."""
        ...

    def test_set(self) -> Dataset:
        """The samples on which a finished model is measured."""
        ...

    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """JSON-able records, one a sample of the test set; lists of several workers are concatenated."""
        ...

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """The measures of all the records that `predict` gave for a test set, in any order.

        JSON-able; under "baseline" the same measures of a trivial answer, where one can be had.
        """
        ...

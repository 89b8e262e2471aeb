"""The interface between tasks and the loops that train and evaluate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from tcformer.models import Network

Batch: TypeAlias = Mapping[str, Tensor]
#: A module, or a wrapper of one, such as a DeepSpeed engine.
Model: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ValidationMeasure:
    """The measure by which the best validation of a training is chosen.

    Attributes:
        name: of one of the sums that `Task.validate` computes, without "_sum".
        higher_is_better: whether larger means of it are better.
    """

    name: str
    higher_is_better: bool


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
        """Make sample `index`: numpy arrays and numbers, with the same keys and shapes for every index.

        All randomness comes from `rng`. None means no augmentation.
        """
        ...


class Task(Protocol):
    """Model, datasets, loss and metrics of one problem."""

    name: str
    validation_measure: ValidationMeasure

    def build_model(self) -> Network:
        """Build the network with newly initialised weights."""
        ...

    def train_set(self) -> Dataset:
        """The training set."""
        ...

    def val_set(self) -> Dataset:
        """The validation set, which is evaluated during training."""
        ...

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Compute the scalar "loss" to minimise, and other detached scalars to log."""
        ...

    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Compute sums over the batch, named "<quantity>_sum", and "count", the number of samples."""
        ...

    def test_set(self) -> Dataset:
        """The test set, which is evaluated after training."""
        ...

    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """Make a prediction for each sample of a batch of the test set.

        Predictions can be written as JSON. The lists of all workers are concatenated.
        """
        ...

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute the metrics of the predictions for the whole test set.

        Args:
            predictions: what `predict` returned for all samples, in any order.

        Returns:
            The metrics, which can be written as JSON. "baseline" contains the same metrics of a trivial prediction, if
            there is one.
        """
        ...

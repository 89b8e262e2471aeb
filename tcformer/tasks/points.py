"""What the tasks of points share: a network that predicts heat maps of crops, its loss and its validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcformer.heatmaps import heat_map_loss, make_codec, share_of_correct
from tcformer.heatmaps.names import CodecName, Decoding
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure


class PointOptions(Protocol):
    """The options of all tasks of points, see `tcformer.tasks.wholebody.options`."""

    @property
    def neck(self) -> str: ...
    @property
    def drop_path(self) -> float: ...
    @property
    def input_size(self) -> tuple[int, int]: ...
    @property
    def codec(self) -> CodecName: ...
    @property
    def sigma(self) -> float: ...


class PointEvaluation(Protocol):
    """The options of all their evaluations."""

    @property
    def flip_test(self) -> bool: ...
    @property
    def decoding(self) -> Decoding: ...


OptionsT = TypeVar("OptionsT", bound=PointOptions)
EvaluationT = TypeVar("EvaluationT", bound=PointEvaluation)


class PointTask(ABC, Generic[OptionsT, EvaluationT]):
    """See `tcformer.tasks.base.Task`. Samples have an "image", "points" and "weights".

    Args:
        options: of the head and the samples.
        network: options of the backbone.
        data_root: folder of the dataset.
        evaluation: only needed by what predicts and evaluates.
    """

    name: str
    validation_measure: ValidationMeasure

    def __init__(
        self, options: OptionsT, network: NetworkOptions, data_root: Path, evaluation: EvaluationT | None = None
    ) -> None:
        self.codec = make_codec(
            options.codec,
            input_size=options.input_size,
            sigma=options.sigma,
            decoding="auto" if evaluation is None else evaluation.decoding,
        )
        self.options = options
        self.network = network
        self.root = Path(data_root)
        self._evaluation = evaluation

    @property
    def evaluation(self) -> EvaluationT:
        """The options of the evaluation.

        Raises:
            ValueError: the task was built without them.
        """
        if self._evaluation is None:
            raise ValueError(f"this {type(self).__name__} was built without evaluation options")
        return self._evaluation

    def build_model(self) -> Network:
        """Build the network with a heat-map head."""
        from tcformer import create_model

        return create_model(
            self.network.backbone,
            task=self.name,
            **self._head_options(),
            neck=self.options.neck,
            drop_path_rate=self.options.drop_path,
            **self.network.model_options,
        )

    def _head_options(self) -> dict[str, Any]:
        """Further options of `create_model`."""
        return {}

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the heat maps (see `heat_map_loss`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        return {"loss": heat_map_loss(heat_maps, targets, weights).mean()}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss and of the measure of each sample (see `validation_measure`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        points, _ = self.codec.decode(heat_maps)
        measures = self._measures(points, self._truth(batch)[0], weights)
        return {
            "loss_sum": heat_map_loss(heat_maps, targets, weights).sum(),
            f"{self.validation_measure.name}_sum": measures.sum(),
            "count": measures.new_tensor(len(measures)),
        }

    def _forward(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted heat maps, their targets, and the weights of the points, 0 for points outside the crop."""
        heat_maps = model(batch["image"])
        targets, weights = self.codec.encode(*self._truth(batch))
        return heat_maps.float(), targets, weights

    def _truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The annotated points (B, K, 2) that the network is to predict, and their weights (B, K)."""
        return batch["points"], batch["weights"]

    def _measures(self, points: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        """(B,) the validation measure of predicted points (B, K, 2), here `share_of_correct`."""
        return share_of_correct(points, truth, weights, self.options.input_size)

    def _predict(self, model: Model, images: Tensor) -> tuple[Tensor, Tensor]:
        """The points (B, K, 2) in pixels of the images, and their scores (B, K); the mean with the mirror images'."""
        flip_test = self.evaluation.flip_test
        return self.codec.decode(self.codec.flip_test(model, images, self._flip()) if flip_test else model(images))

    @abstractmethod
    def _flip(self) -> NDArray[np.int64]:
        """(K,): point i of a mirrored image is point `result[i]` of the original."""

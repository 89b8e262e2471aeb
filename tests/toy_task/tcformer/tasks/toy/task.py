"""Finding the centre and the rightmost point of a disc: two heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tcformer.data.toy.dataset import SIZE, Discs
from tcformer.metrics.toy import evaluate_toy
from tcformer.tasks.toy.options import ToyEvaluation, ToyOptions
from torch import Tensor

from tcformer.heatmaps import decode_heat_maps, gaussian_heat_maps, heat_map_loss
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure


class ToyTask:
    """See `tcformer.tasks.base.Task`."""

    name = "toy"
    validation_measure = ValidationMeasure("loss", higher_is_better=False)

    def __init__(
        self, options: ToyOptions, network: NetworkOptions, data_root: Path, evaluation: ToyEvaluation | None = None
    ) -> None:
        self.options, self.network, self.root, self.evaluation = options, network, Path(data_root), evaluation

    def build_model(self) -> Network:
        """The network with two heat maps."""
        from tcformer import create_model

        return create_model(self.network.backbone, "wholebody", num_keypoints=2, **self.network.model_options)

    def train_set(self) -> Discs:
        return Discs(self.root / "train")

    def val_set(self) -> Discs:
        return Discs(self.root / "val")

    test_set = val_set

    def _losses(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        heat_maps = model(batch["image"]).float()
        size = (heat_maps.shape[2], heat_maps.shape[3])
        targets, weights = gaussian_heat_maps(batch["points"], batch["weights"], SIZE, size, self.options.sigma)
        return heat_maps, heat_map_loss(heat_maps, targets, weights)

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self._losses(model, batch)[1].mean()}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        _, losses = self._losses(model, batch)
        return {"loss_sum": losses.sum(), "count": losses.new_tensor(len(losses))}

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        points, _ = decode_heat_maps(model(batch["image"]))
        return [
            {"index": index, "points": found} for index, found in zip(batch["index"].tolist(), (4 * points).tolist())
        ]

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        assert self.evaluation is not None
        data = self.test_set()
        truth = np.stack([data.sample(record["index"], None)["points"] for record in predictions])
        found = np.array([record["points"] for record in predictions])
        return evaluate_toy(found, truth, self.evaluation.tolerance)


TASK = ToyTask

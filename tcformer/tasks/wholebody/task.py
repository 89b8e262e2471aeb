"""Whole-body pose: 133 heat maps of person crops, trained and evaluated on COCO-WholeBody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcformer.data.wholebody.dataset import (
    Crops,
    People,
    Split,
    WholebodyAugmentation,
    WholebodyDataset,
    annotated_crops,
    annotation_file,
    detected_crops,
    detection_file,
    image_folder,
    load_people,
)
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, SUBSETS, flip_within, subset
from tcformer.errors import UserError
from tcformer.heatmaps import heat_map_loss, make_codec, share_of_correct
from tcformer.metrics.oks import oks_nms
from tcformer.metrics.wholebody import evaluate_wholebody, mean_pose, mean_pose_results, wholebody_oks
from tcformer.metrics.wholebody_results import make_results
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.wholebody.options import WholebodyEvaluation, WholebodyOptions


class WholebodyTask:
    """See `tcformer.tasks.base.Task`.

    Args:
        options: of the head and the samples.
        network: options of the backbone.
        data_root: folder with the official files, see `tcformer.data.wholebody.dataset`.
        evaluation: only needed by `test_set`, `predict` and `evaluate`.
    """

    name = "wholebody"
    validation_measure = ValidationMeasure("pck", higher_is_better=True)

    def __init__(
        self,
        options: WholebodyOptions,
        network: NetworkOptions,
        data_root: Path,
        evaluation: WholebodyEvaluation | None = None,
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
        self._points = subset(options.keypoints)  # (K,) of the 133

    @property
    def evaluation(self) -> WholebodyEvaluation:
        """The options of the evaluation.

        Raises:
            ValueError: the task was built without them.
        """
        if self._evaluation is None:
            raise ValueError("this WholebodyTask was built without evaluation options")
        return self._evaluation

    def build_model(self) -> Network:
        """Build the network with a heat-map head."""
        from tcformer import create_model

        options = self.options
        return create_model(
            self.network.backbone,
            task="wholebody",
            keypoints=options.keypoints,
            neck=options.neck,
            drop_path_rate=options.drop_path,
            **self.network.model_options,
        )

    def train_set(self) -> WholebodyDataset:
        """The annotated persons of the training split, augmented."""
        crops = annotated_crops(load_people(annotation_file(self.root, "train")))
        return self._dataset(crops, "train", self.options.augmentation)

    def val_set(self) -> WholebodyDataset:
        """The annotated persons of the validation split."""
        return self._dataset(annotated_crops(load_people(annotation_file(self.root, "val"))), "val")

    def test_set(self) -> WholebodyDataset:
        """The persons of the validation split, in annotated boxes or in detections."""
        if self.evaluation.boxes == "ground_truth":
            return self.val_set()
        people = load_people(annotation_file(self.root, "val"))
        crops = detected_crops(detection_file(self.root), people, self.evaluation.least_box_score)
        return self._dataset(crops, "val")

    def _dataset(
        self, crops: Crops, split: Split, augmentation: WholebodyAugmentation | None = None
    ) -> WholebodyDataset:
        if not len(crops):
            raise UserError(f"{self.root}: no person to crop in the {split} split; expected at least one")
        folder = image_folder(self.root, split)
        return WholebodyDataset(crops, folder, self.options.input_size, self.options.box_padding, augmentation)

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the heat maps (see `heat_map_loss`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        return {"loss": heat_map_loss(heat_maps, targets, weights).mean()}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss and of the fraction of each person's points that are correct ("pck_sum").

        See `share_of_correct`. A person without a point in the crop counts as 1.
        """
        heat_maps, targets, weights = self._forward(model, batch)
        points, _ = self.codec.decode(heat_maps)
        share = share_of_correct(points, batch["points"][:, self._points], weights, self.options.input_size)
        return {
            "loss_sum": heat_map_loss(heat_maps, targets, weights).sum(),
            "pck_sum": share.sum(),
            "count": share.new_tensor(len(share)),
        }

    def _forward(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        heat_maps = model(batch["image"])
        targets, weights = self.codec.encode(batch["points"][:, self._points], batch["weights"][:, self._points])
        return heat_maps.float(), targets, weights

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A result in the COCO-WholeBody format for each crop (see `make_results`), duplicates not yet removed."""
        images, chosen = batch["image"], self._points
        flip = self.evaluation.flip_test
        heat_maps = self.codec.flip_test(model, images, flip_within(chosen)) if flip else model(images)
        points, scores = self.codec.decode(heat_maps)
        size, threshold = self.options.input_size, self.evaluation.keypoint_threshold
        return make_results(points, scores, size, batch, threshold, chosen)

    def complete(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Extend x, y, score (K, 3) of the predicted points to all points (133, 3). The others are 0."""
        whole = np.zeros((NUM_KEYPOINTS, 3), points.dtype)
        whole[self._points] = points
        return whole

    def suppress(self, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Remove duplicates of the same person from the predictions for the whole test set."""
        return oks_nms(predictions, self.evaluation.oks_nms, self._points)

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute {part: {metric: value}} of `metrics.evaluate_wholebody` for the predicted parts, without duplicates.

        With annotated boxes, and if all points are predicted, "oks" is the mean OKS of `metrics.wholebody_oks`.
        "baseline" contains the same metrics of the mean pose of the training persons, placed in every box. It is absent
        if there are no training annotations.
        """
        people = load_people(annotation_file(self.root, "val"))
        metrics = self._metrics(people, predictions)
        training = annotation_file(self.root, "train")
        if training.exists():
            pose = mean_pose(load_people(training))
            metrics["baseline"] = self._metrics(people, mean_pose_results(pose, self.test_set().crops))
        return metrics

    def _metrics(self, people: People, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        # For "hand" also the published value, the mean of left and right.
        shown, everything = (*SUBSETS[self.options.keypoints], self.options.keypoints), self.options.keypoints == "all"
        found = evaluate_wholebody(people, self.suppress(predictions))
        metrics: dict[str, Any] = {part: found[part] for part in found if part in shown or everything}
        if self.evaluation.boxes == "ground_truth" and everything:
            metrics["oks"] = wholebody_oks(people, predictions)
        return metrics


TASK = WholebodyTask

"""Whole-body pose: 133 heat maps of person crops, trained and evaluated on COCO-WholeBody."""

from __future__ import annotations

from functools import cached_property
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
from tcformer.metrics.oks import oks_nms
from tcformer.metrics.wholebody import evaluate_wholebody, mean_pose, mean_pose_results, wholebody_oks
from tcformer.metrics.wholebody_results import make_results
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.points import PointTask
from tcformer.tasks.wholebody.options import WholebodyEvaluation, WholebodyOptions


class WholebodyTask(PointTask[WholebodyOptions, WholebodyEvaluation]):
    """See `tcformer.tasks.base.Task`; the official files are those of `tcformer.data.wholebody.dataset`."""

    name = "wholebody"
    validation_measure = ValidationMeasure("pck", higher_is_better=True)

    @cached_property
    def _points(self) -> NDArray[np.int64]:
        """(K,) the predicted points among the 133."""
        return subset(self.options.keypoints)

    def _head_options(self) -> dict[str, Any]:
        return {"keypoints": self.options.keypoints}

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

    def _truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch["points"][:, self._points], batch["weights"][:, self._points]

    def _flip(self) -> NDArray[np.int64]:
        return flip_within(self._points)

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A result in the COCO-WholeBody format for each crop (see `make_results`), duplicates not yet removed."""
        points, scores = self._predict(model, batch["image"])
        size, threshold = self.options.input_size, self.evaluation.keypoint_threshold
        return make_results(points, scores, size, batch, threshold, self._points)

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

"""Keypoints of the user's own: heat maps of crops, trained and evaluated on COCO keypoint files."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tcformer.data.keypoints.annotations import Annotated, load_annotated
from tcformer.data.keypoints.points import PointSet
from tcformer.data.wholebody.dataset import WholebodyDataset
from tcformer.errors import UserError
from tcformer.metrics.keypoints import evaluate_keypoints, keypoint_results, mean_results
from tcformer.metrics.wholebody import mean_points
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.keypoints.options import KeypointFiles, KeypointsAugmentation, KeypointsEvaluation, KeypointsOptions
from tcformer.tasks.points import PointTask


class KeypointsTask(PointTask[KeypointsOptions, KeypointsEvaluation]):
    """See `tcformer.tasks.base.Task`; the options name the files."""

    name = "keypoints"
    validation_measure = ValidationMeasure("pck", higher_is_better=True)

    @cached_property
    def _loaded(self) -> dict[KeypointFiles, Annotated]:
        return {}

    @property
    def test_files(self) -> KeypointFiles:
        """The files to measure on."""
        return self.evaluation.test or self.options.val

    def annotated(self, files: KeypointFiles) -> Annotated:
        """The annotations of some of the files; they are read once.

        Raises:
            UserError: see `load_annotated`, or the points are not those of the validation files.
        """
        found, expected = self._load(files), self.points.names
        if (names := found.points.names) != expected:
            raise UserError(
                f"{self.root / files.annotations}: {len(names)} keypoints ({', '.join(names[:4])}, ...): expected "
                f"those of {self.options.val.annotations}, {len(expected)} ({', '.join(expected[:4])}, ...), in the "
                "same order; use files with the same category"
            )
        return found

    def _load(self, files: KeypointFiles) -> Annotated:
        if files not in self._loaded:
            options = self.options
            described = None if options.points is None else self.root / options.points
            path, images = self.root / files.annotations, self.root / files.images
            self._loaded[files] = load_annotated(path, images, options.category, described)
        return self._loaded[files]

    @property
    def points(self) -> PointSet:
        """The points that are predicted: those of the validation files."""
        return self._load(self.options.val).points

    def _head_options(self) -> dict[str, Any]:
        """The number of points, and their description, which the network's config keeps."""
        return {"num_keypoints": len(self.points), "points": self.points.to_json()}

    def train_set(self) -> WholebodyDataset:
        """The training set, augmented."""
        return self._dataset(self.options.train, self.options.augmentation)

    def val_set(self) -> WholebodyDataset:
        """The validation set."""
        return self._dataset(self.options.val)

    def test_set(self) -> WholebodyDataset:
        """The set to measure on, in annotated boxes."""
        return self._dataset(self.test_files)

    def _dataset(self, files: KeypointFiles, augmentation: KeypointsAugmentation | None = None) -> WholebodyDataset:
        annotated = self.annotated(files)
        crops = annotated.crops()
        if not len(crops):
            raise UserError(
                f"{self.root / files.annotations}: no labelled {annotated.points.category or 'object'}; expected at "
                "least one annotation with a keypoint of visibility above 0; label some"
            )
        mirrors = augmentation is not None and augmentation.flip_probability > 0
        flip = annotated.points.mirrored() if mirrors else np.arange(len(annotated.points))
        changes = None if augmentation is None else augmentation.of_crops()
        folder, options = self.root / files.images, self.options
        return WholebodyDataset(crops, folder, options.input_size, options.box_padding, changes, flip)

    def _flip(self) -> NDArray[np.int64]:
        return self.annotated(self.test_files).points.mirrored()

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A result in COCO's keypoint format for each crop, see `keypoint_results`."""
        points, scores = self._predict(model, batch["image"])
        size, threshold = self.options.input_size, self.evaluation.keypoint_threshold
        category = self.annotated(self.test_files).category_id
        return keypoint_results(points, scores, size, batch, threshold, category)

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute the measures of `evaluate_keypoints`.

        "baseline" contains the same measures of the mean pose of the training set, placed in every box. It is absent
        if there are no training annotations.
        """
        annotated = self.annotated(self.test_files)
        metrics = evaluate_keypoints(annotated, predictions)
        if (self.root / self.options.train.annotations).exists():
            training = self.annotated(self.options.train).crops()
            if len(training):
                mean = mean_results(mean_points(training), annotated.crops(), annotated.category_id)
                metrics["baseline"] = evaluate_keypoints(annotated, mean)
        return metrics


TASK = KeypointsTask

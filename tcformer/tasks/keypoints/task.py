"""Keypoints of the user's own: heat maps of crops, trained and evaluated on COCO keypoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcformer.data.keypoints.annotations import Annotated, load_annotated
from tcformer.data.keypoints.points import PointSet
from tcformer.data.wholebody.dataset import WholebodyDataset
from tcformer.errors import UserError
from tcformer.heatmaps import heat_map_loss, make_codec, share_of_correct
from tcformer.metrics.keypoints import evaluate_keypoints, keypoint_results, mean_points, mean_results
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.keypoints.options import KeypointFiles, KeypointsAugmentation, KeypointsEvaluation, KeypointsOptions


class KeypointsTask:
    """See `tcformer.tasks.base.Task`.

    Args:
        options: the files, and options of the head and the samples.
        network: options of the backbone.
        data_root: folder that the files are below.
        evaluation: only needed by `test_set`, `predict` and `evaluate`.
    """

    name = "keypoints"
    validation_measure = ValidationMeasure("pck", higher_is_better=True)

    def __init__(
        self,
        options: KeypointsOptions,
        network: NetworkOptions,
        data_root: Path,
        evaluation: KeypointsEvaluation | None = None,
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
        self._loaded: dict[KeypointFiles, Annotated] = {}

    @property
    def evaluation(self) -> KeypointsEvaluation:
        """The options of the evaluation.

        Raises:
            ValueError: the task was built without them.
        """
        if self._evaluation is None:
            raise ValueError("this KeypointsTask was built without evaluation options")
        return self._evaluation

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

    def build_model(self) -> Network:
        """Build the network with a heat-map head. Its config describes the points."""
        from tcformer import create_model

        return create_model(
            self.network.backbone,
            task="keypoints",
            num_keypoints=len(self.points),
            points=self.points.to_json(),
            neck=self.options.neck,
            drop_path_rate=self.options.drop_path,
            **self.network.model_options,
        )

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

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the heat maps (see `heat_map_loss`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        return {"loss": heat_map_loss(heat_maps, targets, weights).mean()}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss and of the fraction of each object's points that are correct (see `share_of_correct`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        points, _ = self.codec.decode(heat_maps)
        share = share_of_correct(points, batch["points"], weights, self.options.input_size)
        return {
            "loss_sum": heat_map_loss(heat_maps, targets, weights).sum(),
            "pck_sum": share.sum(),
            "count": share.new_tensor(len(share)),
        }

    def _forward(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        heat_maps = model(batch["image"])
        targets, weights = self.codec.encode(batch["points"], batch["weights"])
        return heat_maps.float(), targets, weights

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A result in COCO's keypoint format for each crop, see `keypoint_results`."""
        images, annotated = batch["image"], self.annotated(self.test_files)
        flip = self.evaluation.flip_test
        heat_maps = self.codec.flip_test(model, images, annotated.points.mirrored()) if flip else model(images)
        points, scores = self.codec.decode(heat_maps)
        size, threshold = self.options.input_size, self.evaluation.keypoint_threshold
        return keypoint_results(points, scores, size, batch, threshold, annotated.category_id)

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

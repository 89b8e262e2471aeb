"""Face alignment: 98 heat maps of face crops, trained and evaluated on WFLW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcformer.data.crops import centre_and_extent, to_image
from tcformer.data.face.dataset import (
    FaceAugmentation,
    FaceDataset,
    Faces,
    FaceSplit,
    face_crops,
    face_image_folder,
    list_file,
    load_faces,
)
from tcformer.data.face.landmarks import EYE_CORNERS, FLIP
from tcformer.errors import UserError
from tcformer.heatmaps import check_input_size, decode_heat_maps, flip_test, gaussian_heat_maps, heat_map_loss
from tcformer.metrics.face import evaluate_face, face_nme, mean_shape, place_shape
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.face.options import FaceEvaluation, FaceOptions


class FaceTask:
    """See `tcformer.tasks.base.Task`.

    Args:
        options: of the head and the samples.
        network: options of the backbone.
        data_root: folder with the official files, see `tcformer.data.face.dataset`.
        evaluation: only needed by `predict`.
    """

    name = "face"
    validation_measure = ValidationMeasure("nme", higher_is_better=False)

    def __init__(
        self,
        options: FaceOptions,
        network: NetworkOptions,
        data_root: Path,
        evaluation: FaceEvaluation | None = None,
    ) -> None:
        check_input_size(options.input_size)
        self.options = options
        self.network = network
        self.root = Path(data_root)
        self._evaluation = evaluation

    @property
    def evaluation(self) -> FaceEvaluation:
        """The options of the evaluation.

        Raises:
            ValueError: the task was built without them.
        """
        if self._evaluation is None:
            raise ValueError("this FaceTask was built without evaluation options")
        return self._evaluation

    def build_model(self) -> Network:
        """Build the network with a heat-map head."""
        from tcformer import create_model

        return create_model(
            self.network.backbone,
            task="face",
            neck=self.options.neck,
            drop_path_rate=self.options.drop_path,
            **self.network.model_options,
        )

    def train_set(self) -> FaceDataset:
        """The faces of the training list, augmented."""
        return self._dataset("train", self.options.augmentation)

    def val_set(self) -> FaceDataset:
        """The faces of the test list, because WFLW has no validation list."""
        return self._dataset("test")

    test_set = val_set

    def _dataset(self, split: FaceSplit, augmentation: FaceAugmentation | None = None) -> FaceDataset:
        faces = load_faces(list_file(self.root, split))
        if not len(faces):
            raise UserError(f"{faces.source}: no face to crop; expected at least one line")
        options = self.options
        return FaceDataset(faces, face_image_folder(self.root), options.input_size, options.box_padding, augmentation)

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the heat maps."""
        heat_maps, targets, weights = self._forward(model, batch)
        return {"loss": heat_map_loss(heat_maps, targets, weights).mean()}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss and of the normalised errors of the faces ("nme_sum", see `metrics.face_nme`)."""
        heat_maps, targets, weights = self._forward(model, batch)
        points, _ = decode_heat_maps(heat_maps)
        height, width = self.options.input_size
        stride = points.new_tensor([width / heat_maps.shape[-1], height / heat_maps.shape[-2]])
        truth = batch["points"]
        right, left = EYE_CORNERS
        distance = (points * stride - truth).norm(dim=-1).mean(-1)
        return {
            "loss_sum": heat_map_loss(heat_maps, targets, weights).sum(),
            "nme_sum": (distance / (truth[:, right] - truth[:, left]).norm(dim=-1)).sum(),
            "count": distance.new_tensor(len(distance)),
        }

    def _forward(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        heat_maps = model(batch["image"])
        height, width = heat_maps.shape[-2:]
        targets, weights = gaussian_heat_maps(
            batch["points"], batch["weights"], self.options.input_size, (height, width), self.options.sigma
        )
        return heat_maps.float(), targets, weights

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A prediction for each face: its "index" in the list and its "points", 98 x, y in image pixels."""
        images = batch["image"]
        heat_maps = flip_test(model, images, FLIP) if self.evaluation.flip_test else model(images)
        height, width = heat_maps.shape[-2:]
        positions, _ = decode_heat_maps(heat_maps)
        centre, extent = (batch[key].cpu().numpy().astype(np.float64) for key in ("centre", "extent"))
        points = to_image(positions.cpu().numpy(), centre, extent, (height, width))
        return [{"index": index, "points": face.tolist()} for index, face in zip(batch["index"].tolist(), points)]

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute {"full" or attribute: {"NME", "FR10", "AUC10", "count"}} of `metrics.evaluate_face`.

        "baseline" contains the same metrics of the mean shape of the training faces, placed in every crop. It is absent
        if there is no training list.

        Raises:
            UserError: a face of the test list has no prediction.
        """
        faces = load_faces(list_file(self.root, "test"))
        found = {prediction["index"]: prediction["points"] for prediction in predictions}
        missing = [index for index in range(len(faces)) if index not in found]
        if missing:
            raise UserError(
                f"predictions: {len(missing)} of the {len(faces)} faces of {faces.source} have none, first face "
                f"{missing[0]} (counted from 0); predict the whole test list"
            )
        metrics: dict[str, Any] = _metrics(np.array([found[index] for index in range(len(faces))]), faces)
        training = list_file(self.root, "train")
        if training.exists() and len(training_faces := load_faces(training)):
            shape = mean_shape(training_faces.points, *self._crops(training_faces))
            metrics["baseline"] = _metrics(place_shape(shape, *self._crops(faces)), faces)
        return metrics

    def _crops(self, faces: Faces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return centre_and_extent(face_crops(faces.points), self.options.input_size, self.options.box_padding)


def _metrics(points: NDArray[np.float64], faces: Faces) -> dict[str, Any]:
    return dict(evaluate_face(face_nme(points, faces.points), faces.attributes))


TASK = FaceTask

"""Face alignment: 98 heat maps of face crops, trained and evaluated on WFLW."""

from __future__ import annotations

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
from tcformer.metrics.face import evaluate_face, face_nme, mean_shape, place_shape
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.face.options import FaceEvaluation, FaceOptions
from tcformer.tasks.points import PointTask


class FaceTask(PointTask[FaceOptions, FaceEvaluation]):
    """See `tcformer.tasks.base.Task`; the official files are those of `tcformer.data.face.dataset`."""

    name = "face"
    validation_measure = ValidationMeasure("nme", higher_is_better=False)

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

    def _measures(self, points: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        """(B,) the normalised error of each face (see `metrics.face_nme`)."""
        right, left = EYE_CORNERS
        return (points - truth).norm(dim=-1).mean(-1) / (truth[:, right] - truth[:, left]).norm(dim=-1)

    def _flip(self) -> NDArray[np.int64]:
        return FLIP

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A prediction for each face: its "index" in the list and its "points", 98 x, y in image pixels."""
        inside, _ = self._predict(model, batch["image"])
        centre, extent = (batch[key].cpu().numpy().astype(np.float64) for key in ("centre", "extent"))
        points = to_image(inside.cpu().numpy(), centre, extent, self.options.input_size)
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

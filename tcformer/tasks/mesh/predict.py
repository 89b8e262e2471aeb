"""Body meshes of people in any picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tcformer import draw as pictures
from tcformer.body.camera import project
from tcformer.body.model import Body, BodyJoints, load_body, load_joints
from tcformer.body.rotations import to_axis_angle
from tcformer.draw import CroppedBody, Example
from tcformer.errors import UserError, require_finite
from tcformer.inference.base import DIGITS, PIXEL_DIGITS, Columns, Prediction, Result, Settings, TaskPredictor, rounded
from tcformer.models import Network
from tcformer.tasks.drawing import View


class MeshPredictor(TaskPredictor):
    """See `tcformer.inference.TaskPredictor`.

    SPIN's boxes are 1.2 times as large as the person.
    """

    shows = "body meshes"
    detects_people = True
    columns: ClassVar[Columns] = TaskPredictor.columns | {
        "rotations": ("double", 4),
        "shape": ("double", 2),
        "camera": ("double", 2),
        "joints": ("double", 3),
    }
    padding = 1.2

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, trained, settings)
        if self.input_size[0] != self.input_size[1]:
            height, width = self.input_size
            raise UserError(f"input size {height} x {width}: meshes need square crops; give the same number twice")
        self._body, self._joints = _body_model(settings)
        if settings.body is None:
            self.notes.append(
                "meshes are drawn with the body of the project's generated people; for weights trained with SMPL, give "
                "the folder of the SMPL model (--body)"
            )

    def predict(self, model: Network, images: Tensor) -> Prediction:
        """See `tcformer.inference.TaskPredictor.predict`."""
        rotations, shape, camera = (output.float().cpu() for output in model(images))
        for output in (rotations, shape, camera):
            require_finite(output, "body parameters")
        joints = self._joints(rotations, shape).spin
        points = (project(joints, camera).double().numpy() + 1) * (0.5 * self.input_size[0])
        outputs = {
            "rotations": rotations.numpy(),
            "shape": shape.numpy(),
            "camera": camera.numpy(),
            "joints": joints.numpy(),
            "vertices": self._body(rotations, shape).vertices.numpy(),
        }
        return Prediction(points, np.ones(points.shape[:2]), outputs)

    def records(self, result: Result) -> list[dict[str, Any]]:
        """A record for each person: SMPL's parameters, the camera of the crop, the crop, and SPIN's 49 joints.

        "pose" contains 24 axis-angle vectors in radians, "joints" metres, "points" the joints in pixels of the picture.
        """
        pose = to_axis_angle(result.outputs["rotations"])  # (P, 24, 3)
        columns = {
            "box": rounded(result.boxes.xywh, PIXEL_DIGITS),
            "pose": rounded(pose.reshape(len(pose), -1), DIGITS),
            "shape": rounded(result.outputs["shape"], DIGITS),
            "camera": rounded(result.outputs["camera"], DIGITS),
            "center": rounded(result.centre, PIXEL_DIGITS),
            "side": rounded(result.extent[:, 0], PIXEL_DIGITS),
            "joints": rounded(result.outputs["joints"], DIGITS),
            "points": rounded(result.points, PIXEL_DIGITS),
        }
        return [dict(zip(columns, row)) for row in zip(*columns.values())]

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """See `tcformer.inference.TaskPredictor.draw`."""
        centres = view.place(result.centre).tolist()
        people = [
            CroppedBody(
                result.outputs["vertices"][row],
                result.outputs["camera"][row],
                (centres[row][0], centres[row][1]),
                float(result.extent[row, 0]) * view.factor,
            )
            for row in range(len(result))
        ]
        return pictures.bodies(view.pixels, people, self._body.faces)

    def example(self, result: Result, row: int) -> Example:
        """See `tcformer.inference.TaskPredictor.example`."""
        vertices, camera = result.outputs["vertices"][row], result.outputs["camera"][row]
        drawn = pictures.body(result.crops[row], vertices, self._body.faces, camera, scale=self.sheet_scale)
        return Example(result.crops[row], result.tokens[row], drawn=drawn)


def _body_model(settings: Settings) -> tuple[Body, BodyJoints]:
    if settings.body is not None:
        return load_body(settings.body), load_joints(settings.body)
    from tcformer.synthetic.smpl_body import VERTEX_IDS, load_smpl_body

    own = load_smpl_body()
    arrays = own.arrays()
    return Body(arrays, VERTEX_IDS), BodyJoints(arrays, own.regressors, VERTEX_IDS)


PREDICTOR = MeshPredictor

"""One person: body, pose and clothes put together, on the ground at the origin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcformer.rasterizer import bounds, transform_points
from tcformer.synthetic.appearance import Appearance, dress, sample_appearance
from tcformer.synthetic.body import SKIN_VERTICES, BodyModel, Shape
from tcformer.synthetic.geometry import UP, Array, rotation
from tcformer.synthetic.pose import Pose, PoseChoice, Posture, sample_expression, sample_pose

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Person:
    """One person in world coordinates."""

    look: Appearance
    posture: Posture
    skin: Float32
    """Vertices (V, 3) of the bare body, on which the key points were measured."""
    dressed: Float32
    """Vertices (V, 3) with clothes and hair: what is drawn."""
    keypoints: Array
    """(133, 3), COCO-WholeBody order."""
    cheeks: Array
    """(17, 14, 3): `BodyModel.cheeks`."""
    facing: Array
    """(3,) the way the face looks."""
    seat_height: float
    """Height of the seat the person sits on, metres; 0 for none."""

    def moved(self, yaw_deg: float, to: Array) -> Person:
        """Turned about the vertical through the origin, then shifted."""
        turn = rotation(UP, yaw_deg)
        matrix = np.column_stack([turn, to])
        return replace(
            self,
            skin=transform_points(self.skin, matrix),
            dressed=transform_points(self.dressed, matrix),
            keypoints=transform_points(self.keypoints, matrix),
            cheeks=transform_points(self.cheeks.reshape(-1, 3), matrix).reshape(self.cheeks.shape),
            facing=turn @ self.facing,
        )


def make_person(body: BodyModel, choice: PoseChoice, rng: np.random.Generator) -> Person:
    """Draw a person who stands, sits or lies on the ground at the origin, facing -y."""
    coefficients = sample_coefficients(body, rng)
    shape = body.shape(coefficients, sample_expression(body, rng))
    pose, posture = sample_pose(body, shape.joints, choice, rng)
    look = sample_appearance(rng)
    if posture in ("sit", "squat", "lie"):
        look = look._replace(skirt=False)  # the skirt's mesh does not fold
    return assemble_person(body, shape, pose, posture, look)


def sample_coefficients(body: BodyModel, rng: np.random.Generator) -> Float32:
    """Draw a body's shape: coefficients (30,) for `BodyModel.shape`."""
    first, second = rng.integers(len(body.shape_bank), size=2)
    return 0.8 * body.shape_bank[first] + 0.2 * body.shape_bank[second]


def assemble_person(body: BodyModel, shape: Shape, pose: Pose, posture: Posture, look: Appearance) -> Person:
    """Pose and dress a body; it stands, sits or lies on the ground at the origin, facing -y."""
    transforms = body.transforms(shape.joints, pose)
    skin = body.skin(shape.vertices, transforms)
    dressed = body.skin(dress(body, look, shape.vertices), transforms)
    keypoints = body.keypoints(shape, skin, transforms)
    seat_height = 0.0
    low, high = bounds(skin[:SKIN_VERTICES])
    ground = float(low[2])
    if posture == "sit":
        bottom = skin[:SKIN_VERTICES][(body.leg_position[:SKIN_VERTICES] > 0.8)]
        seat_height = float(bottom[:, 2].min()) - ground
    person = Person(
        look, posture, skin, dressed, keypoints, body.cheeks(skin),
        transforms[body.bone["head"], :, :3] @ np.array([0.0, -1.0, 0.0]), seat_height,
    )  # fmt: skip
    middle = (low + high) / 2
    return person.moved(0.0, np.array([-middle[0], -middle[1], -ground]))

"""One person: a posed and dressed body on the ground."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tcformer.synthetic.appearance import Appearance, dress, sample_appearance
from tcformer.synthetic.exact import product
from tcformer.synthetic.geometry import FORWARD, UP, Array, Float32, bounds, rotation, transform_points
from tcformer.synthetic.pose import Pose, PoseSpec, Posture, sample_expression, sample_pose
from tcformer.synthetic.template_body import SKIN_VERTICES, Shape, TemplateBody


@dataclass(frozen=True)
class Person:
    """One person in world space."""

    appearance: Appearance
    posture: Posture
    skin: Float32
    """Vertices (V, 3) of the bare body, from which the keypoints are computed."""
    dressed: Float32
    """Vertices (V, 3) of the body with clothes and hair, which is drawn."""
    keypoints: Array
    """(133, 3) in the order of COCO-WholeBody."""
    jaw_candidates: Array
    """(17, 14, 3) `TemplateBody.jaw_candidates68`."""
    facing: Array
    """(3,) unit vector in which the face looks."""
    seat_height: float
    """Height of the seat on which the person sits, metres; 0 for a person who does not sit."""

    def moved(self, yaw_deg: float, to: Array) -> Person:
        """The person rotated about the vertical axis through the origin, then shifted by `to` (3,), metres."""
        turn = rotation(UP, yaw_deg)
        matrix = np.column_stack([turn, to])
        candidates = transform_points(self.jaw_candidates.reshape(-1, 3), matrix)
        return replace(
            self,
            skin=transform_points(self.skin, matrix),
            dressed=transform_points(self.dressed, matrix),
            keypoints=transform_points(self.keypoints, matrix),
            jaw_candidates=candidates.reshape(self.jaw_candidates.shape),
            facing=product(turn, self.facing),
        )


def make_person(body: TemplateBody, spec: PoseSpec, rng: np.random.Generator) -> Person:
    """Sample a person who stands, sits or lies on the ground at the origin and faces -y."""
    coefficients = sample_coefficients(body, rng)
    shape = body.shape(coefficients, sample_expression(body, rng))
    pose, posture = sample_pose(body, shape.joints, spec, rng)
    appearance = sample_appearance(rng)
    if posture in ("sit", "squat", "lie"):
        appearance = appearance._replace(skirt=False)  # the skirt's mesh does not fold
    return assemble_person(body, shape, pose, posture, appearance)


def sample_coefficients(body: TemplateBody, rng: np.random.Generator) -> Float32:
    """Sample a body's shape: coefficients (30,) for `TemplateBody.shape`."""
    first, second = rng.integers(len(body.shape_bank), size=2)
    return 0.8 * body.shape_bank[first] + 0.2 * body.shape_bank[second]


def assemble_person(body: TemplateBody, shape: Shape, pose: Pose, posture: Posture, appearance: Appearance) -> Person:
    """Pose and dress a body, and put it on the ground at the origin, facing -y."""
    transforms = body.transforms(shape.joints, pose)
    skin = body.skin(shape.vertices, transforms)
    dressed = body.skin(dress(body, appearance, shape.vertices), transforms)
    keypoints = body.keypoints(shape, skin, transforms)
    seat_height = 0.0
    low, high = bounds(skin[:SKIN_VERTICES])
    ground = float(low[2])
    if posture == "sit":
        bottom = skin[:SKIN_VERTICES][(body.leg_position[:SKIN_VERTICES] > 0.8)]
        seat_height = float(bottom[:, 2].min()) - ground
    person = Person(
        appearance=appearance,
        posture=posture,
        skin=skin,
        dressed=dressed,
        keypoints=keypoints,
        jaw_candidates=body.jaw_candidates68(skin),
        facing=product(transforms[body.bone["head"], :, :3], FORWARD),
        seat_height=seat_height,
    )
    middle = (low + high) / 2
    return person.moved(0.0, np.array([-middle[0], -middle[1], -ground]))

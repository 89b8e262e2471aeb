"""Random postures: on the ground, and made of rotations."""

from __future__ import annotations

import numpy as np
import pytest

from tcformer.synthetic.person import make_person
from tcformer.synthetic.pose import POSTURES, PoseSpec, sample_pose
from tcformer.synthetic.template_body import SKIN_VERTICES, load_template_body


@pytest.mark.parametrize("posture", POSTURES)
def test_postures(posture: str) -> None:
    body = load_template_body()
    person = make_person(body, PoseSpec(posture=posture), np.random.default_rng(5))
    skin = person.skin[:SKIN_VERTICES]
    assert np.isfinite(person.dressed).all()
    assert abs(float(skin[:, 2].min())) < 1e-4  # on the ground
    height, length = np.ptp(skin[:, 2]), max(np.ptp(skin[:, 0]), np.ptp(skin[:, 1]))
    assert (posture == "lie") == (length > 1.8 * height)
    assert (person.seat_height > 0.15) == (posture == "sit")


def test_rotations_of_a_pose_are_rotations() -> None:
    body = load_template_body()
    shape = body.shape(body.shape_bank[7], {"jawOpen": 0.5})
    pose, _ = sample_pose(body, shape.joints, PoseSpec(), np.random.default_rng(1))
    for turn in pose.values():
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) > 0

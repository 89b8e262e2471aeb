"""The body model and poses."""

from __future__ import annotations

import numpy as np
import pytest

from tcformer.synthetic.body import SKIN_VERTICES, load_body
from tcformer.synthetic.person import make_person
from tcformer.synthetic.pose import POSTURES, PoseChoice, sample_pose

LEFT_RIGHT = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]
FEET = [(17, 20), (18, 21), (19, 22)]
HANDS = [(91 + i, 112 + i) for i in range(21)]


def rest_keypoints() -> np.ndarray:
    body = load_body()
    shape = body.shape(np.zeros(30, np.float32), {})
    return body.keypoints(shape, shape.vertices, body.transforms(shape.joints, {}))


def test_rest_position_is_mirror_symmetric_and_left_is_left() -> None:
    points = rest_keypoints()
    assert points.shape == (133, 3)
    mirror = np.array([-1.0, 1.0, 1.0])
    for left, right in LEFT_RIGHT + FEET + HANDS:
        assert points[left, 0] > points[right, 0]
        np.testing.assert_allclose(points[left], points[right] * mirror, atol=3e-3)
    # iBUG's first jaw point is on the person's right.
    assert points[23, 0] < points[23 + 16, 0]


def test_the_parts_of_the_body_lie_in_their_places() -> None:
    points = rest_keypoints()
    nose, shoulders, hips, ankles = points[0], points[5:7], points[11:13], points[15:17]
    assert nose[2] > shoulders[:, 2].max() > hips[:, 2].max() > ankles[:, 2].max()
    assert nose[1] < points[3, 1]  # in front of the ear
    assert points[17, 1] < points[19, 1]  # the big toe is in front of the heel
    wrist, knuckles, tips = points[91], points[[92, 96, 100, 104, 108]], points[[95, 99, 103, 107, 111]]
    assert (np.linalg.norm(tips - wrist, axis=1) > np.linalg.norm(knuckles - wrist, axis=1)).all()
    # Thumb to little finger: the thumb's tip lies nearer to the index finger than to the little finger.
    assert np.linalg.norm(tips[0] - tips[1]) < np.linalg.norm(tips[0] - tips[4])


def test_the_body_keypoint_of_the_wrist_is_where_the_hand_starts() -> None:
    points = rest_keypoints()
    assert np.linalg.norm(points[9] - points[91]) < 0.03
    assert np.linalg.norm(points[10] - points[112]) < 0.03


@pytest.mark.parametrize("posture", POSTURES)
def test_postures(posture: str) -> None:
    body = load_body()
    person = make_person(body, PoseChoice(posture=posture), np.random.default_rng(5))
    skin = person.skin[:SKIN_VERTICES]
    assert np.isfinite(person.dressed).all()
    assert abs(float(skin[:, 2].min())) < 1e-4  # on the ground
    height, length = np.ptp(skin[:, 2]), max(np.ptp(skin[:, 0]), np.ptp(skin[:, 1]))
    assert (posture == "lie") == (length > 1.8 * height)
    assert (person.seat_height > 0.15) == (posture == "sit")


def test_rotations_of_a_pose_are_rotations() -> None:
    body = load_body()
    shape = body.shape(body.shape_bank[7], {"jawOpen": 0.5})
    pose, _ = sample_pose(body, shape.joints, PoseChoice(), np.random.default_rng(1))
    for turn in pose.values():
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) > 0


def test_an_expression_moves_the_face_only() -> None:
    body = load_body()
    still, open_ = (body.shape(np.zeros(30, np.float32), e) for e in ({}, {"jawOpen": 1.0}))
    moved = np.abs(still.vertices - open_.vertices).max(1) > 1e-4
    assert moved.any()
    assert body.part_weights["head"][:SKIN_VERTICES][moved[:SKIN_VERTICES]].min() > 0

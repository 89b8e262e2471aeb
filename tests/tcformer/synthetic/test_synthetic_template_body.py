"""The template body: its keypoints and facial expressions."""

from __future__ import annotations

import numpy as np

from tcformer.data.wholebody.keypoints import FLIP_PAIRS, PARTS
from tcformer.synthetic.template_body import SKIN_VERTICES, load_template_body

FACE = range(PARTS["face"].start, PARTS["face"].stop)


def rest_keypoints() -> np.ndarray:
    body = load_template_body()
    shape = body.shape(np.zeros(30, np.float32), {})
    return body.keypoints(shape, shape.vertices, body.transforms(shape.joints, {}))


def test_rest_position_is_mirror_symmetric_and_left_is_left() -> None:
    points = rest_keypoints()
    assert points.shape == (133, 3)
    mirror = np.array([-1.0, 1.0, 1.0])
    for left, right in (pair for pair in FLIP_PAIRS if pair[0] not in FACE):
        assert points[left, 0] > points[right, 0]
        np.testing.assert_allclose(points[left], points[right] * mirror, atol=3e-3)
    # iBUG's first jaw point is on the person's right.
    assert points[FACE[0], 0] < points[FACE[16], 0]


def test_keypoints_are_in_plausible_places() -> None:
    points = rest_keypoints()
    nose, shoulders, hips, ankles = points[0], points[5:7], points[11:13], points[15:17]
    assert nose[2] > shoulders[:, 2].max() > hips[:, 2].max() > ankles[:, 2].max()
    assert nose[1] < points[3, 1]  # in front of the ear
    assert points[17, 1] < points[19, 1]  # the big toe in front of the heel
    wrist, knuckles, tips = points[91], points[[92, 96, 100, 104, 108]], points[[95, 99, 103, 107, 111]]
    assert (np.linalg.norm(tips - wrist, axis=1) > np.linalg.norm(knuckles - wrist, axis=1)).all()
    # The tip of the thumb is nearer to the index finger than to the little finger.
    assert np.linalg.norm(tips[0] - tips[1]) < np.linalg.norm(tips[0] - tips[4])


def test_the_body_keypoint_of_the_wrist_is_where_the_hand_starts() -> None:
    points = rest_keypoints()
    assert np.linalg.norm(points[9] - points[91]) < 0.03
    assert np.linalg.norm(points[10] - points[112]) < 0.03


def test_an_expression_moves_the_face_only() -> None:
    body = load_template_body()
    still, open_ = (body.shape(np.zeros(30, np.float32), e) for e in ({}, {"jawOpen": 1.0}))
    moved = np.abs(still.vertices - open_.vertices).max(1) > 1e-4
    assert moved.any()
    assert body.part_weights["head"][:SKIN_VERTICES][moved[:SKIN_VERTICES]].min() > 0

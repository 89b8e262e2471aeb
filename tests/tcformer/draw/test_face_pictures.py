"""Face landmarks on plain pictures."""

import numpy as np
import pytest

from tcformer import draw
from tcformer.data.face.landmarks import CONTOURS, FLIP
from tcformer.draw import faces

GREY = np.full((60, 60, 3), 128, np.uint8)


def face(confidence=1.0):
    """A face that looks into the camera: the person's left is at the image's right."""
    points = np.zeros((98, 3))
    points[:, 2] = confidence
    angle = np.linspace(np.pi, 0, 33)
    points[:33, :2] = np.stack([30 + 22 * np.cos(angle), 25 + 28 * np.sin(angle)], axis=1)
    for first, count, centre, size in (
        (33, 9, (20, 16), (7, 1)),
        (42, 9, (40, 16), (7, 1)),
        (60, 8, (20, 24), (5, 2)),
        (68, 8, (40, 24), (5, 2)),
        (76, 12, (30, 43), (7, 3)),
        (88, 8, (30, 43), (5, 1)),
    ):
        angle = np.pi + np.linspace(0, 2 * np.pi, count, endpoint=False)
        points[first : first + count, 0] = centre[0] + size[0] * np.cos(angle)
        points[first : first + count, 1] = centre[1] + size[1] * np.sin(angle)
    points[51:55, :2] = np.stack([np.full(4, 30), np.linspace(24, 34, 4)], axis=1)
    points[55:60, :2] = np.stack([np.linspace(26, 34, 5), np.full(5, 36)], axis=1)
    points[96, :2], points[97, :2] = (20, 24), (40, 24)
    return points


def test_nothing_above_the_threshold_draws_nothing():
    assert (draw.landmarks(GREY, face(0.3), threshold=0.3, scale=3) == 128).all()
    assert (draw.landmarks(GREY, np.zeros((0, 98, 3)), scale=1) == GREY).all()


def test_sides_have_their_colours():
    picture = draw.landmarks(GREY, face(), scale=4).astype(int)
    assert picture.shape == (240, 240, 3)
    left, right, middle = (picture[4 * y + 2, 4 * x + 2] for x, y in ((40, 24), (20, 24), (30, 34)))
    assert left[1] > left[0] + 50 and left[1] > left[2] + 50
    assert right[0] > right[2] + 100 and right[0] > right[1] + 50
    assert middle[2] > middle[0] + 100


def test_every_point_has_a_dot():
    for index in range(98):
        points = face(0.0)
        points[index, 2] = 1
        changed = (draw.landmarks(GREY, points, scale=4) != 128).any(axis=2)
        row, column = np.nonzero(changed)
        expected = (points[index, :2] + 0.5) * 4 - 0.5
        assert changed.any() and np.abs([column.mean() - expected[0], row.mean() - expected[1]]).max() < 0.6


def test_lines_are_symmetric_and_join_all_but_the_pupils():
    pairs = {frozenset(pair) for pair in faces._segments()}
    assert {frozenset((int(FLIP[a]), int(FLIP[b]))) for a, b in map(tuple, pairs)} == pairs
    assert set(range(98)) - {point for pair in pairs for point in pair} == {96, 97}
    assert len(pairs) == sum(last - first + closed for first, last, closed in CONTOURS)


def test_truth_lies_in_white_under_the_prediction():
    moved = face()
    moved[:, 0] -= 3
    truth = face()
    picture = draw.landmarks(GREY, moved, truth=truth, scale=4)
    assert (picture[4 * 53 + 2, 4 * 30 + 2] > 200).all()  # the annotated chin
    plain = draw.landmarks(GREY, moved, scale=4)
    assert (picture != plain).any() and ((plain > 200).all(axis=2).sum() < (picture > 200).all(axis=2).sum())


def test_points_outside_the_picture():
    far = face()
    far[:, :2] += 1e7
    assert (draw.landmarks(GREY, far, scale=2) == 128).all()


@pytest.mark.parametrize("points", [np.zeros((133, 3)), np.zeros((98, 2)), np.full((98, 3), np.nan)])
def test_wrong_points_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        draw.landmarks(GREY, points)
    with pytest.raises(ValueError, match="points"):
        draw.face_mask(points, (60, 60))


def test_mask_is_the_face():
    mask = draw.face_mask(face(), (60, 60))
    assert mask.shape == (60, 60) and mask.dtype == bool
    inside = np.rint(face()[:, :2]).astype(int)
    assert mask[inside[:, 1], inside[:, 0]].all()
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert not draw.face_mask(face(0), (60, 60)).any()

"""Whole-body keypoints on plain pictures."""

import numpy as np
import pytest

from tcformer import draw
from tcformer.data.wholebody.keypoints import FLIP, PARTS, SKELETON
from tcformer.draw import people

GREY = np.full((64, 48, 3), 128, np.uint8)


def person(confidence=1.0):
    """A stick figure facing the viewer: its left side is at the image's right."""
    points = np.zeros((133, 3))
    points[:, 2] = confidence
    points[:, :2] = (24, 10)
    for side, left in ((1, 0), (-1, 1)):
        for index, (dx, y) in {
            5: (8, 20),
            7: (10, 28),
            9: (11, 36),
            11: (5, 38),
            13: (5, 48),
            15: (5, 58),
        }.items():
            points[index + left, :2] = (24 + side * dx, y)
        points[17 + 3 * left : 20 + 3 * left, :2] = (24 + side * 7, 60)
        hand = PARTS["righthand" if left else "lefthand"]
        points[hand, 0] = 24 + side * (11 + np.linspace(0, 2, 21))
        points[hand, 1] = 36 + np.linspace(0, 4, 21)
    angle = np.linspace(0, 2 * np.pi, 68)
    points[PARTS["face"], :2] = np.stack([24 + 4 * np.cos(angle), 10 + 5 * np.sin(angle)], axis=1)
    return points


def test_nothing_above_the_threshold_draws_nothing():
    assert (draw.keypoints(GREY, person(0.3), threshold=0.3, scale=3) == 128).all()
    assert (draw.keypoints(GREY, np.zeros((0, 133, 3)), scale=1) == GREY).all()


def test_sides_have_their_colours():
    picture = draw.keypoints(GREY, person(), scale=4).astype(int)
    assert picture.shape == (256, 192, 3)
    # The left knee, at the image's right, is green; the right one orange.
    left, right = picture[48 * 4 + 2, 29 * 4 + 2], picture[48 * 4 + 2, 19 * 4 + 2]
    assert left[1] > left[0] + 50 and left[1] > left[2] + 50
    assert right[0] > right[2] + 100 and right[0] > right[1] + 50


def test_line_widths_follow_the_person():
    def ink(factor):
        image = np.full((64 * factor, 48 * factor, 3), 128, np.uint8)
        points = person()
        points[:, :2] *= factor
        return (draw.keypoints(image, points, scale=1) != 128).any(axis=2).mean()

    # Lines of one width would cover a third of the share in a picture three times as large.
    assert ink(12) > 0.5 * ink(4)


def test_truth_lies_in_white_under_the_prediction():
    truth = person()
    moved = person()
    moved[:, 0] -= 12
    picture = draw.keypoints(GREY, moved, truth=truth, scale=4)
    assert (picture[53 * 4 + 2, 29 * 4 + 2] > 240).all()
    both = draw.keypoints(GREY, truth, truth=truth, scale=4).astype(int)
    assert both[48 * 4 + 2, 29 * 4 + 2, 1] > both[48 * 4 + 2, 29 * 4 + 2, 0] + 50


def test_several_persons_and_points_outside_the_picture():
    far = person()
    far[:, :2] += 1e7
    assert (draw.keypoints(GREY, np.stack([far, person(0)]), scale=2, threshold=0.5) == 128).all()
    edge = person()
    edge[:, 0] -= 20
    assert (draw.keypoints(GREY, edge, scale=2) != 128).any()


def test_bones_are_symmetric_and_cover_every_point():
    bones = list(people._bones())
    pairs = {frozenset(bone[:2]) for bone in bones}
    assert {frozenset((int(FLIP[a]), int(FLIP[b]))) for a, b in map(tuple, pairs)} == pairs
    assert {frozenset(bone) for bone in SKELETON} <= pairs
    # The skeleton joins fingers to the body's wrists, so the hands' own roots have no bone.
    assert set(range(133)) - {index for pair in pairs for index in pair} == {91, 112}


@pytest.mark.parametrize("points", [np.zeros((17, 3)), np.zeros((133, 2)), np.full((133, 3), np.nan)])
def test_wrong_points_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        draw.keypoints(GREY, points)
    with pytest.raises(ValueError, match="points"):
        draw.person_mask(points, (64, 48))


def test_mask_covers_the_person_and_not_the_corners():
    points = person()
    mask = draw.person_mask(points, (64, 48))
    assert mask.shape == (64, 48) and mask.dtype == bool
    inside = np.rint(points[:, :2]).astype(int)
    assert mask[inside[:, 1], inside[:, 0]].all()
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert not draw.person_mask(person(0), (64, 48)).any()

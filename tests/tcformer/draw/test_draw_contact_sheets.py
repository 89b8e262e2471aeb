"""Contact sheets of examples and of any pictures."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tcformer import draw


def example(seed, points=True, label=""):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (64, 48, 3)).astype(np.uint8)
    stages = [draw.Partition(np.arange(16 * 12) % (16 * 12 // 4**stage), (16, 12)) for stage in range(4)]
    keypoints = np.column_stack([rng.uniform(5, 40, (133, 2)), np.ones(133)])
    return draw.Example(image, stages, points=keypoints if points else None, label=label)


def test_a_sheet_contains_its_pictures_unchanged():
    one = np.full((10, 70, 3), 1, np.uint8)
    two = np.full((20, 80, 3), 2, np.uint8)
    page = draw.contact_sheet([[one, two], [two, one]], [("a", ""), ("b", "")], labels=["", "row"])
    assert (page == 1).all(axis=2).sum() == 2 * one[..., 0].size
    assert (page == 2).all(axis=2).sum() == 2 * two[..., 0].size
    assert (page[[0, -1]] == 255).all() and (page[:, [0, -1]] == 255).all()


def test_columns_of_the_token_sheet():
    with_points = draw.token_sheet([example(0), example(1, points=False)], scale=2)
    without = draw.token_sheet([example(0, points=False), example(1, points=False)], scale=2)
    assert with_points.shape[1] == pytest.approx(without.shape[1] * 7 / 6, rel=0.02)
    first = example(0)
    enlarged = draw.tokens(first.image, first.partitions[1].token_of_cell, (16, 12), scale=2)
    difference = cv2.matchTemplate(with_points, enlarged, cv2.TM_SQDIFF)
    top, left = np.unravel_index(difference.argmin(), difference.shape)
    assert (with_points[top : top + 128, left : left + 96] == enlarged).all()


def test_face_landmarks_are_in_the_column_of_points():
    face = replace(example(6), points=example(6).points[:98])
    page = draw.token_sheet([face], scale=2)
    drawn = draw.landmarks(face.image, face.points, scale=2, threshold=0.3)
    difference = cv2.matchTemplate(page, drawn, cv2.TM_SQDIFF)
    top, left = np.unravel_index(difference.argmin(), difference.shape)
    assert (page[top : top + 128, left : left + 96] == drawn).all()


def test_invalid_sheets_raise():
    picture = example(0).image
    with pytest.raises(ValueError, match="no examples"):
        draw.token_sheet([])
    with pytest.raises(ValueError, match="partitions"):
        draw.token_sheet([example(0), draw.Example(picture, example(0).partitions[:3])])
    with pytest.raises(ValueError, match="one per title"):
        draw.contact_sheet([[picture]], [("a", ""), ("b", "")])
    with pytest.raises(ValueError, match="footers"):
        draw.contact_sheet([[picture]], [("a", "")], footers=[None, None])


def found(page, picture):
    """Where a picture is on a page, as (top, left); fails if it is not there unchanged."""
    difference = cv2.matchTemplate(page, picture, cv2.TM_SQDIFF)
    top, left = (int(at) for at in np.unravel_index(difference.argmin(), difference.shape))
    height, width = picture.shape[:2]
    assert (page[top : top + height, left : left + width] == picture).all()
    return top, left


def test_networks_are_compared_in_groups_of_columns_or_below_each_other():
    one = example(3, points=False)
    fine = replace(one, partitions=[draw.Partition(np.arange(16 * 12), (16, 12))] * 4)
    pictures = [draw.tokens(e.image, e.partitions[3].token_of_cell, (16, 12), scale=2) for e in (one, fine)]
    networks = {"coarse": [one, example(4, points=False)], "fine": [fine, example(4, points=False)]}
    page = draw.comparison_sheet(networks, stages=[3], scale=2)
    (top, left), (same, right) = (found(page, picture) for picture in pictures)
    assert top == same and right > left + 2 * 96, "the token sizes are between them"
    page = draw.comparison_sheet(networks, stages=[3], in_rows=True, scale=2)
    (top, left), (below, same) = (found(page, picture) for picture in pictures)
    assert left == same and below >= top + 128
    with pytest.raises(ValueError, match="numbers of examples"):
        draw.comparison_sheet({"a": [one], "b": []})


def test_sizes_of_compared_tokens_have_the_same_colours():
    one = example(3, points=False)
    fine = replace(one, partitions=[draw.Partition(np.arange(16 * 12), (16, 12))] * 4)
    page = draw.comparison_sheet({"coarse": [one], "fine": [fine]}, stages=[3], scale=2)
    largest = np.unique(one.partitions[3].token_of_cell, return_counts=True)[1].max()
    for part in (one.partitions[3], fine.partitions[3]):
        found(page, draw.token_sizes(part.token_of_cell, (16, 12), (64, 48), scale=2, largest=int(largest)))

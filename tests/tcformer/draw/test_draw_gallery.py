"""Pictures of any shape in rows of equal width."""

import numpy as np
import pytest

from tcformer import draw

ASPECTS = [1.5, 0.7, 1.0, 1.8, 0.6, 1.3, 1.0]


def test_rows_are_as_wide_as_the_page_and_keep_the_shapes() -> None:
    rows = draw.row_sizes(ASPECTS, 800, 200)
    sizes = [size for row in rows for size in row]
    assert len(rows) > 1 and len(sizes) == len(ASPECTS)
    for (width, height), aspect in zip(sizes, ASPECTS):
        assert width == pytest.approx(aspect * height, abs=1.5)
    for row in rows:
        assert len({height for _, height in row}) == 1 and 130 < row[0][1] <= 260
        assert sum(width for width, _ in row) + 6 * (len(row) - 1) == pytest.approx(800, abs=len(row))
    assert draw.row_sizes([1.0], 800, 200) == [[(260, 260)]], "a lonely picture does not fill the page"
    assert [len(row) for row in draw.row_sizes([1.5] * 12, 1800, 400)] == [3, 3, 3, 3]
    assert draw.row_sizes([], 800, 200) == []


def test_a_gallery_contains_its_pictures_unchanged() -> None:
    one, two = np.full((40, 300, 3), 1, np.uint8), np.full((60, 250, 3), 2, np.uint8)
    block = draw.GalleryBlock("title", "second", [[one], [two, two]], lambda width, size: draw.side_legend(width))
    page = draw.gallery([block, draw.GalleryBlock("another", "", [[one]])])
    assert (page == 1).all(axis=2).sum() == 2 * one[..., 0].size
    assert (page == 2).all(axis=2).sum() == 2 * two[..., 0].size
    assert (page[[0, -1]] == 255).all() and (page[:, [0, -1]] == 255).all()
    heading = page[: np.flatnonzero((page == 1).all(2).any(1))[0]]
    assert (heading < 100).all(2)[:, : page.shape[1] // 2].any() and (heading < 100).all(2)[:, -150:].any()


def test_a_gallery_without_pictures_raises() -> None:
    for blocks in ([], [draw.GalleryBlock("title", "", [[]])]):
        with pytest.raises(ValueError, match="no pictures"):
            draw.gallery(blocks)

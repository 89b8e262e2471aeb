"""Token regions and token sizes of small partitions."""

import numpy as np
import pytest

from tcformer import draw

# Tokens of a 2 x 3 grid. Token 7 has two separate regions; the labels are neither consecutive nor in order.
CELLS = np.array([7, 3, 7, 7, 3, 3])
GRID = (2, 3)


def picture_of_cells(values, size=4):
    """A picture with a grey level for each cell of the 2 x 3 grid, `size` pixels per side."""
    colours = np.array(values, np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    return colours.repeat(size, axis=0).repeat(size, axis=1)


def test_regions_have_their_mean_colour_even_if_disconnected():
    image = picture_of_cells([10, 100, 20, 30, 110, 120])
    picture = draw.tokens(image, CELLS, GRID, scale=1, border=0)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    seven, three = 20, 110
    assert (picture == picture_of_cells([seven, three, seven, seven, three, three])).all()


@pytest.mark.parametrize(("border", "columns", "rows"), [(1, (7, 15), (7,)), (2, (7, 8, 15, 16), (7, 8))])
def test_lines_are_exactly_between_cells_of_different_tokens(border, columns, rows):
    image = picture_of_cells([200] * 6)
    picture = draw.tokens(image, CELLS, GRID, scale=2, border=border)
    expected = np.zeros((16, 24), dtype=bool)
    expected[:8, list(columns)] = True  # 7|3|7 above
    expected[8:, [c for c in columns if c < 12]] = True  # 7|3 3 below
    for row in rows:
        expected[row, 16:] = True  # 7 over 3 on the right
    assert ((picture != 200).all(axis=2) == expected).all()


def test_lines_contrast_with_light_and_dark_regions():
    for level in (0, 40, 128, 255):
        picture = draw.tokens(picture_of_cells([level] * 6), CELLS, GRID, scale=2).astype(int)
        assert abs(picture[0, 7, 0] - level) > 50


def test_a_fixed_grid_shows_every_cell_and_a_single_token_no_line():
    image = picture_of_cells(range(0, 240, 40), size=8)
    grid = draw.tokens(image, np.arange(6), GRID, scale=1, border=0)
    assert (grid == image).all()
    whole = draw.tokens(image, np.zeros(6, int), GRID, scale=3)
    assert (whole == 100).all() and whole.shape == (48, 72, 3)


def test_the_grid_need_not_divide_the_image():
    image = np.random.default_rng(0).integers(0, 255, (7, 10, 3)).astype(np.uint8)
    assert draw.tokens(image, CELLS, GRID, scale=3).shape == (21, 30, 3)


def test_finer_tokens_are_brighter_and_pictures_comparable():
    cells = np.array([0, 1, 1, 2, 2, 2])
    picture = draw.token_sizes(cells, GRID, (8, 12), scale=2, largest=6)
    light = picture.reshape(16, 24, 3).sum(axis=2, dtype=int)
    assert picture.shape == (16, 24, 3)
    assert light[0, 0] > light[0, 12] > light[12, 0]
    same = draw.token_sizes(np.array([0, 1, 2, 3, 3, 3]), GRID, (8, 12), scale=2, largest=6)
    assert (same[12, 0] == picture[12, 0]).all()
    assert (draw.token_sizes(np.arange(6), GRID, (8, 12)) == draw.token_sizes(cells, GRID, (8, 12))[0, 0]).all()


def test_the_legend_runs_from_fine_to_coarse():
    legend = draw.size_legend(512, 300)
    assert legend.shape == (36, 300, 3)
    bar = legend[6, 14:286].sum(axis=1, dtype=int)
    assert bar[0] > bar[-1]
    draw.size_legend(1, 60)


@pytest.mark.parametrize(
    "call",
    [
        lambda image: draw.tokens(image, np.arange(5), GRID),
        lambda image: draw.tokens(image.astype(float), CELLS, GRID),
        lambda image: draw.tokens(image[..., 0], CELLS, GRID),
        lambda image: draw.tokens(image, CELLS, GRID, border=3),
    ],
)
def test_invalid_arguments_raise(call):
    with pytest.raises(ValueError):
        call(picture_of_cells([0] * 6))


def test_the_package_is_imported_without_opencv():
    import subprocess
    import sys

    code = "import sys; sys.modules['cv2'] = None; from tcformer.draw import token_density; print('ok')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "ok\n"

"""Measures of tokens in cases computed by hand, and the adjusted Rand index against its definition by pairs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcformer.metrics.tokens import Region, adjusted_rand_index, mask_of_cells, on_grid, shares, twins_in_one_token

GRID, IMAGE = (4, 4), (8, 8)  # cells of 2 x 2 pixels
LEFT_HALF = np.zeros(IMAGE, bool)
LEFT_HALF[:, :4] = True
CELLS = np.arange(16)
HALVES = np.tile([0, 0, 1, 1], 4)


def test_tokens_that_split_at_the_persons_outline_are_pure() -> None:
    found = shares(HALVES, LEFT_HALF, GRID)
    assert found is not None
    assert (found.area, found.tokens, found.purity, found.person_purity) == (0.5, 0.5, 1.0, 1.0)


def test_one_token_for_everything_mixes_person_and_background() -> None:
    quarter = LEFT_HALF & LEFT_HALF.T
    found = shares(np.zeros(16, np.int64), quarter, GRID)
    assert found is not None
    assert (found.area, found.tokens, found.purity, found.person_purity) == (0.25, 0.25, 0.75, 0.25)


def test_fine_tokens_on_a_person_have_more_than_their_share_of_the_area() -> None:
    """Eight tokens of one cell on the person, one token of eight cells beside it."""
    tokens = np.where(HALVES == 0, CELLS, 99)
    found = shares(tokens, LEFT_HALF, GRID)
    assert found is not None
    assert found.area == 0.5 and found.tokens == pytest.approx(8 / 9) and found.purity == 1


def test_a_token_across_the_outline_counts_by_its_cells() -> None:
    """Rows are tokens; the person is the left three columns."""
    mask = np.zeros(IMAGE, bool)
    mask[:, :6] = True
    found = shares(CELLS // 4, mask, GRID)
    assert found is not None
    assert (found.tokens, found.purity, found.person_purity) == (0.75, 0.75, 0.75)


def test_cells_on_the_outline_have_a_share_of_the_person() -> None:
    mask = np.zeros(IMAGE, bool)
    mask[0, :3] = True  # the upper half of cell 0, a quarter of cell 1
    assert mask_of_cells(mask, GRID)[:3].tolist() == [0.5, 0.25, 0]
    found = shares(CELLS, mask, GRID)
    assert found is not None
    assert found.tokens == found.area == pytest.approx(3 / 64) and found.purity == found.person_purity == 1
    assert mask_of_cells(np.ones((9, 7), bool), GRID).tolist() == [1.0] * 16  # sizes that 4 does not divide


@pytest.mark.parametrize("mask", [np.zeros(IMAGE, bool), np.ones(IMAGE, bool)])
def test_nothing_to_tell_apart(mask: np.ndarray) -> None:
    assert shares(CELLS, mask, GRID) is None


def test_twins_in_one_token() -> None:
    """Of five pairs one is not annotated, one lies outside, one lies in one cell; of the two others one is together."""
    points = np.array(
        [[0, 0], [2, 0]] + [[0, 4], [7, 4]] + [[0, 0], [1, 1]] + [[0, 7], [3, 7]] + [[-3, 0], [2, 0]], np.float32
    )
    labelled = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 1], bool)
    twins = {"hand": np.arange(10).reshape(5, 2), "none": np.zeros((0, 2), np.int64)}
    region = Region(None, points, labelled, twins)
    assert twins_in_one_token(HALVES, region, IMAGE, GRID) == {"hand": (1, 2), "none": (0, 0)}
    assert twins_in_one_token(CELLS, region, IMAGE, GRID)["hand"] == (0, 2)
    assert twins_in_one_token(0 * CELLS, region, IMAGE, GRID)["hand"] == (2, 2)


def test_a_point_belongs_to_the_pixel_that_it_is_nearest_to() -> None:
    points = np.array([[1.4, 0.0], [1.6, 0.0], [-0.4, 0.0], [7.4, 0.0], [7.6, 0.0]], np.float32)  # cells 0, 1, 0, 3, -
    pairs = {"left": np.array([[0, 1], [0, 2]]), "right": np.array([[1, 3], [1, 4]])}
    region = Region(None, points, np.ones(5, bool), pairs)
    assert twins_in_one_token(0 * CELLS, region, IMAGE, GRID) == {"left": (1, 1), "right": (1, 1)}


def test_coarser_grids() -> None:
    assert on_grid(np.arange(4), (2, 2), (4, 4)).reshape(4, 4)[:, 0].tolist() == [0, 0, 2, 2]
    assert on_grid(np.arange(2), (1, 2), (1, 3)).tolist() == [0, 0, 1]
    assert on_grid(CELLS, GRID, GRID).tolist() == CELLS.tolist()


def rand_index_by_pairs(first: list[int], second: list[int]) -> float:
    """2 (ad - bc) / ((a + b)(b + d) + (a + c)(c + d)) over the pairs of cells that are together in both, one, none."""
    a = b = c = d = 0
    for i, j in combinations(range(len(first)), 2):
        together = first[i] == first[j], second[i] == second[j]
        a, b, c, d = (x + (together == y) for x, y in zip((a, b, c, d), ((1, 1), (1, 0), (0, 1), (0, 0))))
    below = (a + b) * (b + d) + (a + c) * (c + d)
    return 2 * (a * d - b * c) / below if below else 1.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_adjusted_rand_index_equals_its_definition_by_pairs(labels: list[tuple[int, int]]) -> None:
    first, second = map(list, zip(*labels))
    expected = rand_index_by_pairs(first, second)
    assert adjusted_rand_index(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-12)


def test_adjusted_rand_index() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 20, 2000)
    assert adjusted_rand_index(first, (first + 7) % 20) == 1  # other numbers, the same clusters
    assert abs(adjusted_rand_index(first, rng.integers(0, 20, 2000))) < 0.01
    assert adjusted_rand_index(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])) == pytest.approx(4 / 7)
    with pytest.raises(ValueError, match="expected"):
        adjusted_rand_index(first, first[1:])

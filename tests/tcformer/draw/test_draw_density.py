"""How much finer the tokens on a person are."""

import numpy as np
import pytest

from tcformer.draw import cells_per_token, token_density


def half_mask(height=8, width=8):
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = True
    return mask


def test_a_fixed_grid_has_density_one():
    assert cells_per_token(np.arange(16), (4, 4), half_mask()) == (1.0, 1.0)
    assert token_density(np.arange(16), (4, 4), half_mask()) == 1.0


def test_a_fine_person_on_one_background_token():
    cells = np.arange(16).reshape(4, 4)
    cells[:, 2:] = 99
    assert cells_per_token(cells.ravel(), (4, 4), half_mask()) == pytest.approx((1.0, 8.0))
    assert token_density(cells.ravel(), (4, 4), half_mask()) == pytest.approx(8.0)
    assert token_density(cells.ravel(), (4, 4), ~half_mask()) == pytest.approx(1 / 8)


def test_a_shared_token_counts_by_its_cells():
    # Token 0 has 3 cells inside and 1 outside; the other 3 outside cells are token 1.
    cells = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    mask = np.array([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=bool)
    inside, outside = cells_per_token(cells, (1, 8), mask)
    assert (inside, outside) == pytest.approx((4.0, 4.0))
    # The tokens of both sides sum to all tokens.
    assert 3 / inside + 5 / outside == pytest.approx(2)


def test_cells_on_the_outline_count_by_their_pixels():
    mask = np.zeros((2, 8), dtype=bool)
    mask[:, :3] = True  # three of the four columns of the first cell
    inside, outside = cells_per_token(np.array([0, 1]), (1, 2), mask)
    assert (inside, outside) == pytest.approx((1.0, 1.0))
    uneven = cells_per_token(np.array([0, 1, 1, 1]), (1, 4), np.array([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=bool))
    assert uneven[0] == pytest.approx(1.5 / (1 + 0.5 / 3))


@pytest.mark.parametrize("mask", [np.ones((8, 8), bool), np.zeros((8, 8), bool), np.ones((2, 8), bool)])
def test_invalid_masks_raise(mask):
    with pytest.raises(ValueError, match="person_mask"):
        token_density(np.arange(16), (4, 4), mask)

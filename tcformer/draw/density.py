"""How much finer the tokens on a person are than the tokens around it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.draw.token_grid import at_pixels, cell_labels


def cells_per_token(
    token_of_cell: ArrayLike, grid_size: tuple[int, int], person_mask: NDArray[np.bool_]
) -> tuple[float, float]:
    """Mean number of grid cells per token inside and outside of a person.

    A token that lies on both sides counts on each side with the share of its cells there, so that the tokens of both
    sides sum to all tokens: inside = (cells inside) / sum over these cells of 1 / (cells of the cell's token).

    Args:
        token_of_cell: (N_init,) the token of each grid cell.
        grid_size: rows and columns of the grid.
        person_mask: (H, W) bool, true on the person, not coarser than the grid. A cell on the outline counts with the
            share of its pixels that are true.

    Returns:
        (inside, outside); 1.0 means one token per cell.

    Raises:
        ValueError: if the mask is true everywhere or nowhere, coarser than the grid or not two-dimensional.
    """
    labels = cell_labels(token_of_cell, grid_size)
    mask = np.asarray(person_mask, dtype=bool)
    if mask.ndim != 2 or mask.shape[0] < grid_size[0] or mask.shape[1] < grid_size[1]:
        raise ValueError(f"person_mask has shape {mask.shape}; expected (H, W) of at least {grid_size}")
    if mask.all() or not mask.any():
        raise ValueError(f"person_mask is {mask.flat[0]} everywhere; expected pixels inside and outside of the person")
    cell_of_pixel = at_pixels(np.arange(labels.size).reshape(labels.shape), *mask.shape).ravel()
    pixels = np.bincount(cell_of_pixel, minlength=labels.size)
    inside = np.bincount(cell_of_pixel, weights=mask.ravel(), minlength=labels.size) / pixels
    tokens_of_cell = 1.0 / np.bincount(labels.ravel())[labels.ravel()]
    return (
        float(inside.sum() / (inside * tokens_of_cell).sum()),
        float((1 - inside).sum() / ((1 - inside) * tokens_of_cell).sum()),
    )


def token_density(token_of_cell: ArrayLike, grid_size: tuple[int, int], person_mask: NDArray[np.bool_]) -> float:
    """How many times finer the tokens on a person are: cells per token outside / cells per token inside.

    It is 1 for a fixed grid. Arguments and errors are those of `cells_per_token`.
    """
    inside, outside = cells_per_token(token_of_cell, grid_size, person_mask)
    return outside / inside

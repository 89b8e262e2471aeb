"""The token grid: the token of each cell, and the cell of each pixel."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cell_labels(token_of_cell: ArrayLike, grid_size: tuple[int, int]) -> NDArray[np.int64]:
    """The token of each grid cell as a map, with the M tokens renumbered 0 to M - 1 in their order.

    Args:
        token_of_cell: (N_init,) integers, one for each cell in row-major order.
        grid_size: rows and columns of the grid, N_init = rows * columns.

    Returns:
        (rows, columns) int64.

    Raises:
        ValueError: if the number of cells is not rows * columns.
    """
    flat = np.asarray(token_of_cell)
    rows, columns = grid_size
    if flat.shape != (rows * columns,):
        raise ValueError(
            f"token_of_cell has shape {flat.shape}; expected ({rows * columns},) for a grid of {rows} x {columns}"
        )
    _, labels = np.unique(flat, return_inverse=True)
    return labels.astype(np.int64).reshape(rows, columns)


def at_pixels(cells: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """A map of cells (rows, columns) as one of pixels (height, width): each has the value of the cell at its centre."""
    rows, columns = cells.shape
    row_of = (2 * np.arange(height) + 1) * rows // (2 * height)
    column_of = (2 * np.arange(width) + 1) * columns // (2 * width)
    return cells[row_of[:, None], column_of[None, :]]

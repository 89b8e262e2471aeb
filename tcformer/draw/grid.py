"""The correspondence between an image's pixels and the cells of the token grid."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cell_labels(token_of_cell: ArrayLike, grid_size: tuple[int, int]) -> NDArray[np.int64]:
    """The token of every grid cell, as a map, with tokens renumbered 0..M-1.

    Args:
        token_of_cell: (N_init,) integers, one for each cell in row-major order; any labels will do.
        grid_size: rows and columns of the grid, N_init = rows * columns.

    Returns:
        (rows, columns) int64; numbers keep the order of the labels given and leave none out.

    Raises:
        ValueError: the number of cells is not rows * columns.
    """
    flat = np.asarray(token_of_cell)
    rows, columns = grid_size
    if flat.shape != (rows * columns,):
        raise ValueError(f"token_of_cell has shape {flat.shape}; a {rows} x {columns} grid needs ({rows * columns},)")
    _, labels = np.unique(flat, return_inverse=True)
    return labels.astype(np.int64).reshape(rows, columns)


def at_pixels(cells: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Spread a (rows, columns) map over height x width pixels: each takes the cell its centre lies in."""
    rows, columns = cells.shape
    row_of = (2 * np.arange(height) + 1) * rows // (2 * height)
    column_of = (2 * np.arange(width) + 1) * columns // (2 * width)
    return cells[row_of[:, None], column_of[None, :]]


def check_picture(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the image is a non-empty (H, W, 3) uint8 array."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"a picture is (H, W, 3) uint8 RGB; got {image.dtype} of shape {image.shape}")

"""Measures of tokens: whether they follow people, what they mix, and how stable the clusters are.

A partition is the token of each cell of the initial grid, (cells,) int64, row by row. docs/measures.md gives the
formulas and their sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Partition = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Region:
    """Where in a crop the person is.

    Attributes:
        mask: (H, W) bool, the pixels of the person; None if it is not known.
        points: (K, 2) x, y in pixels of the crop, 0 is the centre of the first pixel.
        labelled: (K,) bool, the points that are annotated.
        twins: for each part the pairs (P, 2) of points that are left and right of each other.
    """

    mask: NDArray[np.bool_] | None
    points: NDArray[np.floating]
    labelled: NDArray[np.bool_]
    twins: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


class Shares(NamedTuple):
    """How the tokens of an image are divided between the person and the rest.

    Attributes:
        area: fraction of the grid that is on the person.
        tokens: fraction of the tokens that are on the person. A token counts with the share of its cells there.
        purity: of all cells, the fraction that are on the side (person or not) of most cells of their token.
        person_purity: mean over the cells on the person of the fraction of their token's cells that are on the person.
    """

    area: float
    tokens: float
    purity: float
    person_purity: float


def on_grid(token_of_cell: Partition, grid_size: Size, finest: Size) -> Partition:
    """The partition of a finer grid: without clustering, each stage has a grid of its own.

    Args:
        token_of_cell: (rows * columns,) of the grid.
        grid_size: rows and columns of the grid.
        finest: rows and columns of the finer grid. Cell row r lies in row r * rows // finest rows, as in `TokenPlan`.
    """
    cells = token_of_cell.reshape(grid_size)
    rows, columns = (np.arange(fine) * coarse // fine for fine, coarse in zip(finest, grid_size, strict=True))
    return cells[rows[:, None], columns].ravel()


def mask_of_cells(mask: NDArray[np.bool_], grid_size: Size) -> NDArray[np.float64]:
    """The fraction of the pixels of each grid cell at which the mask is true, (cells,)."""
    cell = _cell_of_pixel(mask.shape, grid_size).ravel()
    cells = grid_size[0] * grid_size[1]
    return np.bincount(cell, mask.ravel(), cells) / np.bincount(cell, minlength=cells)


def shares(tokens: Partition, mask: NDArray[np.bool_], grid_size: Size) -> Shares | None:
    """Compare tokens with the mask of a person.

    Shares of area and tokens count a cell on the outline with the share of its pixels. For the purities, a cell is on
    the person if at least half of its pixels are.

    Args:
        tokens: (cells,) a partition of the grid.
        mask: (H, W) bool.
        grid_size: rows and columns of the grid, at most H and W.

    Returns:
        None if the person covers no cell or every cell, because there is nothing to tell apart then.
    """
    share = mask_of_cells(mask, grid_size)
    inside = share >= 0.5
    if inside.all() or not inside.any():
        return None
    labels = _numbered(tokens)
    size = np.bincount(labels)  # (N,) cells of each token
    fraction = np.bincount(labels, inside) / size  # (N,) of a token's cells, those on the person
    return Shares(
        area=float(share.mean()),
        tokens=float((share / size[labels]).sum() / len(size)),
        purity=float((size * np.maximum(fraction, 1 - fraction)).sum() / len(labels)),
        person_purity=float(fraction[labels[inside]].mean()),
    )


def twins_in_one_token(
    tokens: Partition, region: Region, image_size: Size, grid_size: Size
) -> dict[str, tuple[int, int]]:
    """Count the pairs of left and right points that lie in one token.

    Pairs whose points lie in one cell of the grid are left out: no network can tell these apart.

    Args:
        tokens: (cells,) a partition of the grid.
        region: points, and the pairs of each part.
        image_size: height and width of the crop, pixels.
        grid_size: rows and columns of the grid.

    Returns:
        For each part, the number of pairs in one token and the number of pairs of which both points are annotated and
        inside the crop.
    """
    column, row = np.floor(region.points.astype(np.float64) + 0.5).astype(np.int64).T  # pixels
    height, width = image_size
    known = region.labelled & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    cell = np.zeros(len(row), np.int64)
    cell[known] = _cell_of_pixel(image_size, grid_size)[row[known], column[known]]
    counts = {}
    for part, pairs in region.twins.items():
        first, second = pairs[known[pairs].all(1)].T
        apart = cell[first] != cell[second]
        together = tokens[cell[first]] == tokens[cell[second]]
        counts[part] = (int((apart & together).sum()), int(apart.sum()))
    return counts


def adjusted_rand_index(first: Partition, second: Partition) -> float:
    """Similarity of two partitions of the same cells: 1 if they are equal, 0 on average for random ones.

    Source: Hubert and Arabie, Comparing partitions, Journal of Classification 1985, equation 5.

    Args:
        first: (cells,) integers, the cluster of each cell; numbers need not agree with those of `second`.
        second: (cells,) integers.

    Raises:
        ValueError: the lengths differ.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"partitions of {first.shape} and {second.shape} cells; expected (cells,) twice")
    a, b = _numbered(first), _numbered(second)
    both = _pairs(np.bincount(a * (int(b.max()) + 1) + b))
    in_first, in_second, possible = _pairs(np.bincount(a)), _pairs(np.bincount(b)), len(a) * (len(a) - 1) / 2
    expected = in_first * in_second / possible if possible else 0.0
    largest = (in_first + in_second) / 2
    # The denominator is 0 where both partitions are one cluster, or both are single cells.
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def _pairs(sizes: NDArray[np.int64]) -> float:
    """Number of pairs of cells within the clusters of these sizes."""
    return float((sizes * (sizes - 1) // 2).sum())


def _numbered(tokens: Partition) -> Partition:
    """The same partition with tokens numbered from 0 without gaps."""
    return np.unique(tokens, return_inverse=True)[1].ravel().astype(np.int64)


def _cell_of_pixel(image_size: Size, grid_size: Size) -> NDArray[np.int64]:
    """(H, W) int64: the cell that holds the centre of each pixel."""
    row, column = (
        (2 * np.arange(pixels) + 1) * cells // (2 * pixels) for pixels, cells in zip(image_size, grid_size, strict=True)
    )
    return row[:, None] * grid_size[1] + column

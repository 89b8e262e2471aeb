"""Sums by segment as products with small matrices, in standard operators: for export.

Runtimes such as onnxruntime scatter rows a hundred times more slowly than they multiply matrices.
"""

from __future__ import annotations

from torch import Tensor

from kernels.constants import EPSILON


def shares(row: Tensor, weight: Tensor, num_rows: int) -> Tensor:
    """Each entry's share in the weight of its row.

    Args:
        row: (B, E) int64 in [0, num_rows).
        weight: (B, E).

    Returns:
        (B, E): weight / (sum of the row's weights + 1e-6).
    """
    total = weight.new_zeros(row.shape[0], num_rows).scatter_add(1, row, weight) + EPSILON
    return weight / total.gather(1, row)


def link_matrix(row: Tensor, column: Tensor, weight: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """(B, num_rows, num_columns) with the `weight` (B, E) of each entry added at its row and column, (B, E) each."""
    pair = row * num_columns + column
    flat = weight.new_zeros(row.shape[0], num_rows * num_columns).scatter_add(1, pair, weight)
    return flat.unflatten(1, (num_rows, num_columns))

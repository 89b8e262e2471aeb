"""Sums by segment as products with small matrices, in standard operators, for export.

Runtimes such as onnxruntime scatter rows a hundred times more slowly than they multiply matrices.
"""

from __future__ import annotations

from torch import Tensor

from kernels.constants import EPSILON


def entry_shares(row: Tensor, weight: Tensor, num_rows: int) -> Tensor:
    """Share of each entry in the total weight of its row.

    Args:
        row: (B, E) int64 in [0, num_rows), the row of each entry.
        weight: (B, E) weight of each entry.
        num_rows: number of rows of each image.

    Returns:
        (B, E): weight / (sum of the row's weights + 1e-6).
    """
    total = weight.new_zeros(row.shape[0], num_rows).scatter_add(1, row, weight) + EPSILON
    return weight / total.gather(1, row)


def weight_matrix(row: Tensor, column: Tensor, weight: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """(B, num_rows, num_columns) matrix of the summed `weight` (B, E) of the entries at each row and column.

    `row` and `column` are (B, E) int64.
    """
    pair = row * num_columns + column
    flat = weight.new_zeros(row.shape[0], num_rows * num_columns).scatter_add(1, pair, weight)
    return flat.unflatten(1, (num_rows, num_columns))

"""Gather rows and sum them by segment: what merging, token maps and up-sampling have in common.

Entries are sorted by the row of the result that they are added to, so the entries of each sum are contiguous. This
needs no atomics, and the order of addition is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import backend_module


def sort_by_row(row: Tensor, num_rows: int, backend: str) -> tuple[Tensor, Tensor]:
    """Sort the entries of each image by row: compressed sparse rows of a batch.

    Args:
        row: (B, n) int64 in [0, num_rows), the row of each of an image's entries.
        num_rows: number of rows of each image.
        backend: as returned by `choose_backend`.

    Returns:
        order: (B * n,) int64, the entries of the first image's row 0, row 1, ..., then those of the next image; entries
            are numbered across the batch and ascend within a row.
        offsets: (B * num_rows + 1,) int64, the position in `order` where each row begins, and the end.

    Raises:
        ValueError: a row is out of range. Not checked on GPUs, where the CPU would have to wait for the answer.
    """
    if row.device.type == "cpu" and row.numel() and not 0 <= row.min() <= row.max() < num_rows:
        raise ValueError(
            f"indices of tokens or clusters must be in [0, {num_rows}), but they range from {row.min()} to {row.max()}"
        )
    if backend == "native":
        return backend_module("segments", "native").sort_by_row(row.contiguous(), num_rows)
    return backend_module("segments", "torch").sort_by_row(row, num_rows)


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None, backend: str) -> Tensor:
    """Sum gathered rows by segment.

    Args:
        rows: (R, C), any floating dtype.
        index: (E,) int64, the row of each entry.
        offsets: (S + 1,) int64, the position where each segment's entries begin, and the end; entries after the end
            belong to no segment.
        weight: (E,) factor of each entry, or None for 1.
        backend: as returned by `choose_backend`.

    Returns:
        (S, C), dtype of `rows`: the sum of weight * rows[index] over each segment, added in ascending order of entries
        in float32 (float64 for float64); 0 for an empty segment.
    """
    rows = rows.contiguous()
    dtype = accumulation_dtype(rows.dtype)
    weight = None if weight is None else weight.to(dtype)
    if backend == "native" and rows.dtype == torch.float32:
        return backend_module("segments", "native").segment_sum(rows, index, offsets, weight)
    if backend == "triton":
        return backend_module("segments", "triton").segment_sum(rows, index, offsets, weight)
    return backend_module("segments", "torch").segment_sum(rows, index, offsets, weight)


def segment_total(weight: Tensor, offsets: Tensor, backend: str) -> Tensor:
    """Sum `weight` (E,), float32 or float64, by segment: (S,); `offsets` and `backend` as for `segment_sum`."""
    if backend == "native" and weight.dtype == torch.float32:
        return backend_module("segments", "native").segment_total(weight, offsets)
    if backend == "triton":
        return backend_module("segments", "triton").segment_total(weight, offsets)
    return backend_module("segments", "torch").segment_total(weight, offsets)


def row_dots(a: Tensor, index_a: Tensor, b: Tensor, index_b: Tensor, backend: str) -> Tensor:
    """Inner products (E,) of the rows a[index_a] and b[index_b], in float32 (float64 for float64)."""
    if backend == "triton":
        return backend_module("segments", "triton").row_dots(a.contiguous(), index_a, b.contiguous(), index_b)
    return backend_module("segments", "torch").row_dots(a, index_a, b, index_b)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums of numbers of this dtype are accumulated."""
    return torch.float64 if dtype == torch.float64 else torch.float32

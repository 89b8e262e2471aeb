"""Gather rows and sum them by segment: the one pattern behind merging, token maps and up-sampling.

Entries are sorted by the row of the result that they add to, so every sum has its own run of entries: no atomics,
and one order of addition.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor


def sort_by_row(row: Tensor, num_rows: int, backend: str) -> tuple[Tensor, Tensor]:
    """Compressed sparse rows of a batch.

    Args:
        row: (B, n) int64 in [0, num_rows), the row of each of an image's entries.
        backend: as `choose_backend` returned it.

    Returns:
        order: (B * n,) int64, the entries, numbered through the batch, of the first image's row 0, row 1, ...;
            within a row in ascending order.
        offsets: (B * num_rows + 1,) int64, where in `order` each row begins, and the end.

    Raises:
        ValueError: a row is out of range (on GPUs not noticed: looking would have the CPU wait).
    """
    batch, n = row.shape
    if row.device.type == "cpu" and row.numel() and not 0 <= row.min() <= row.max() < num_rows:
        raise ValueError(
            f"tokens and clusters must be in [0, {num_rows}), but they reach from {row.min()} to {row.max()}"
        )
    if backend == "native":
        return import_module("kernels.native").sort_by_row(row.contiguous(), num_rows)
    rows, order = row.sort(dim=1, stable=True)
    first = torch.arange(batch, device=row.device)[:, None]
    # A search rather than counting, which on GPUs would have the CPU wait.
    offsets = torch.searchsorted((rows + first * num_rows).flatten(), _range(batch * num_rows + 1, row))
    return (order + first * n).flatten(), offsets


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None, backend: str) -> Tensor:
    """Sum gathered rows by segment; see kernels/README.md for who computes it.

    Args:
        rows: (R, C), any floating dtype.
        index: (E,) int64, the row of each entry.
        offsets: (S + 1,) int64, where each segment's entries begin, and the end; what is beyond belongs to none.
        weight: (E,) factor of each entry, or None.
        backend: as `choose_backend` returned it.

    Returns:
        (S, C), dtype of `rows`: weight * rows[index], added up in ascending order of entries in float32 (float64 for
        float64); 0 for an empty segment.
    """
    rows = rows.contiguous()
    precise = accumulator(rows.dtype)
    weight = None if weight is None else weight.to(precise)
    if backend == "native" and rows.dtype == torch.float32:
        return import_module("kernels.native").segment_sum(rows, index, offsets, weight)
    if backend == "triton":
        return import_module("kernels.triton_segments").segment_sum(rows, index, offsets, weight)
    # `embedding_bag` sums with indices of its own choice where all are given.
    total = torch.embedding_bag(
        rows.to(precise),
        index,
        offsets,
        scale_grad_by_freq=False,
        mode=0,
        sparse=False,
        per_sample_weights=weight,
        include_last_offset=True,
    )[0]
    return total.to(rows.dtype)


def segment_total(weight: Tensor, offsets: Tensor, backend: str) -> Tensor:
    """Sum `weight` (E,), float32 or float64, by segment: (S,)."""
    if backend == "native" and weight.dtype == torch.float32:
        return import_module("kernels.native").segment_total(weight, offsets)
    if backend == "triton":
        return import_module("kernels.triton_segments").segment_total(weight, offsets)
    return torch.segment_reduce(weight, "sum", lengths=offsets.diff(), unsafe=True, initial=0)


def entry_dots(a: Tensor, index_a: Tensor, b: Tensor, index_b: Tensor, backend: str) -> Tensor:
    """Inner products (E,) of a[index_a] and b[index_b], in float32 (float64 for float64)."""
    if backend == "triton":
        return import_module("kernels.triton_segments").row_dot(a.contiguous(), index_a, b.contiguous(), index_b)
    precise = accumulator(a.dtype)
    return torch.linalg.vecdot(a[index_a].to(precise), b[index_b].to(precise))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """In what sums of this dtype are accumulated."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _range(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)

"""Sums of gathered rows by segment, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.segments.op import accumulation_dtype


def sort_by_row(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """See `kernels.segments.sort_by_row`."""
    batch, n = row.shape
    rows, order = row.sort(dim=1, stable=True)
    image = torch.arange(batch, device=row.device)[:, None]
    boundaries = torch.arange(batch * num_rows + 1, device=row.device)
    # A search rather than a count: on a GPU, counting would make the CPU wait.
    offsets = torch.searchsorted((rows + image * num_rows).flatten(), boundaries)
    return (order + image * n).flatten(), offsets


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None) -> Tensor:
    """See `kernels.segments.segment_sum`; `weight` is float32, or float64 for float64 rows."""
    # Gathers and adds in one pass, without an array of all gathered rows.
    total = torch.embedding_bag(
        rows.to(accumulation_dtype(rows.dtype)),
        index,
        offsets,
        scale_grad_by_freq=False,
        mode=0,
        sparse=False,
        per_sample_weights=weight,
        include_last_offset=True,
    )[0]
    return total.to(rows.dtype)


def segment_total(weight: Tensor, offsets: Tensor) -> Tensor:
    """See `kernels.segments.segment_total`."""
    return torch.segment_reduce(weight, "sum", lengths=offsets.diff(), unsafe=True, initial=0)


def row_dots(a: Tensor, index_a: Tensor, b: Tensor, index_b: Tensor) -> Tensor:
    """See `kernels.segments.row_dots`."""
    dtype = accumulation_dtype(a.dtype)
    return torch.linalg.vecdot(a[index_a].to(dtype), b[index_b].to(dtype))

"""Gather rows and sum them by segment: the one pattern behind merging, token maps and up-sampling.

Cells link rows of one table to rows of another. `segment_sum` adds, for every target row, the source rows of
its cells. Its backward is the same sum with the roles exchanged, so neither direction needs atomics, and both
add in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Cells and the row of one table that each belongs to, in compressed sparse row form.

    Attributes:
        row_of_cell: (cells,) int64.
        order: (cells,) int64, the cells of row 0, then those of row 1, ...; within a row in ascending order.
        starts: (rows,) int64, where in `order` each row begins.
        counts: (rows,) int64, how many cells each row has.
    """

    row_of_cell: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def build(cls, row_of_cell: Tensor, num_rows: int) -> Rows:
        """Sort cells by `row_of_cell` (cells,) int64 in [0, num_rows)."""
        counts = torch.bincount(row_of_cell, minlength=num_rows)
        order = torch.sort(row_of_cell, stable=True)[1]
        return cls(row_of_cell, order, counts.cumsum(0) - counts, counts)

    @classmethod
    def one_each(cls, num_rows: int, device: torch.device) -> Rows:
        """As many cells as rows: cell i belongs to row i."""
        index = torch.arange(num_rows, device=device)
        return cls(index, index, index, torch.ones_like(index))


@dataclass(frozen=True, eq=False)
class Pairing:
    """Cells as links from source rows to target rows."""

    source: Rows
    target: Rows

    @cached_property
    def source_rows(self) -> Tensor:
        """(cells,) source row of each cell, cells sorted by target row."""
        return self.source.row_of_cell[self.target.order]

    @cached_property
    def target_rows(self) -> Tensor:
        """(cells,) target row of each cell, cells sorted by source row."""
        return self.target.row_of_cell[self.source.order]


def segment_sum(x: Tensor, pairing: Pairing, weight: Tensor | None = None) -> Tensor:
    """Sum source rows into target rows.

    Args:
        x: (source rows, C).
        pairing: which source row goes to which target row.
        weight: (cells,) factor of each cell, of the dtype of `x`; 1 if None.

    Returns:
        (target rows, C): the sum over a row's cells of weight * x, 0 for a row without cells.
    """
    return _SegmentSum.apply(x.contiguous(), weight, pairing)


def segment_total(weight: Tensor, rows: Rows) -> Tensor:
    """Sum of `weight` (cells,) over the cells of each row: (rows,)."""
    return torch.segment_reduce(weight[rows.order], "sum", lengths=rows.counts, unsafe=True, initial=0)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, pairing: Pairing) -> Tensor:
        ctx.pairing = pairing
        # x is wanted for the gradient of the weight alone.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        cell_weight = None if weight is None else weight[pairing.target.order]
        return _bag(x, pairing.source_rows, pairing.target.starts, cell_weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        pairing: Pairing = ctx.pairing
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            cell_weight = None if weight is None else weight[pairing.source.order]
            grad_x = _bag(grad, pairing.target_rows, pairing.source.starts, cell_weight)
        if ctx.needs_input_grad[1]:
            source, target = pairing.source.row_of_cell, pairing.target.row_of_cell
            grad_weight = torch.linalg.vecdot(x[source], grad[target])
        return grad_x, grad_weight, None


def _bag(rows: Tensor, index: Tensor, starts: Tensor, weight: Tensor | None) -> Tensor:
    """Sum of rows[index] * weight over the segments that begin at `starts`."""
    return torch.embedding_bag(
        rows, index, starts, scale_grad_by_freq=False, mode=0, sparse=False, per_sample_weights=weight
    )[0]

"""Token maps in plain PyTorch, without (N_init, N) matrices.

Four cases, cheapest first: tokens that still are the grid on a map of the grid's size (a reshape), on a map
whose size divides the grid's (a 2-D block mean), few tokens and pixels (one small matrix an image), anything
else (gather and sum by segment).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.segments import Pairing, segment_sum, segment_total
from kernels.token_map.plan import TokenPlan

# A product with a pixel-by-token matrix costs H * W * N multiplications a channel, gathering costs N_init reads.
# Up to this many multiplications a read the product is faster (one AMD EPYC core, 128 and 1024 channels).
_PRODUCTS_PER_READ = 4


def token2map(x: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.token2map`. The result is contiguous in channels-last memory format."""
    m = _tokens_to_pixels(x, plan)  # (B, HW, C)
    return m.unflatten(1, plan.map_size).permute(0, 3, 1, 2)  # (B, C, H, W)


def map2token(m: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.map2token`. Fastest for a map in channels-last memory format."""
    return _pixels_to_tokens(m.permute(0, 2, 3, 1).flatten(1, 2), plan)  # (B, N, C)


def upsample_tokens(x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor) -> Tensor:
    """See `kernels.upsample_tokens`."""
    weight = cell_weight.to(x.dtype).flatten()  # (B * N_init,)
    total = segment_total(weight, fine.cells_by_token) + EPSILON  # (B * N_fine,)
    pairing = Pairing(coarse.cells_by_token, fine.cells_by_token)
    y = segment_sum(x.flatten(0, 1), pairing, weight) / total[:, None]  # (B * N_fine, C)
    return y.unflatten(0, (fine.batch, fine.num_tokens))


def _tokens_to_pixels(x: Tensor, plan: TokenPlan) -> Tensor:
    """(B, N, C) to (B, HW, C)."""
    if plan.is_reshape:
        return x
    if plan.is_grid and (block := _block_size(plan)):
        return _SumBlocks.apply(x, plan) / (block[0] * block[1] + EPSILON)
    if _is_small(plan):
        return plan.mean_matrices[0].to(x.dtype) @ x
    m = segment_sum(x.flatten(0, 1), plan.tokens_to_pixels)  # (B * HW, C)
    return m.unflatten(0, (plan.batch, plan.num_pixels)) * plan.pixel_factor.to(x.dtype)


def _pixels_to_tokens(m: Tensor, plan: TokenPlan) -> Tensor:
    """(B, HW, C) to (B, N, C)."""
    if plan.is_reshape:
        return m
    if plan.is_grid and _block_size(plan):
        return _RepeatBlocks.apply(m / (1 + EPSILON), plan)
    if _is_small(plan):
        return plan.mean_matrices[1].to(m.dtype) @ m
    x = segment_sum(m.flatten(0, 1), plan.pixels_to_tokens)  # (B * N, C)
    return x.unflatten(0, (plan.batch, plan.num_tokens)) * plan.token_factor.to(m.dtype)


def _is_small(plan: TokenPlan) -> bool:
    return plan.num_pixels * plan.num_tokens <= _PRODUCTS_PER_READ * plan.token_of_cell.shape[1]


def _block_size(plan: TokenPlan) -> tuple[int, int] | None:
    """Rows and columns of cells in every pixel, if the map's sides divide the grid's."""
    (h0, w0), (h, w) = plan.grid_size, plan.map_size
    return (h0 // h, w0 // w) if h0 % h == 0 and w0 % w == 0 else None


def _sum_blocks(x: Tensor, plan: TokenPlan) -> Tensor:
    """(B, N, C) grid cells to (B, HW, C)."""
    (h, w), (rows, columns) = plan.map_size, plan.grid_size
    cells = x.reshape(plan.batch, h, rows // h, w, columns // w, -1)
    # Added slice by slice: `cells.sum((2, 4))` takes forty times as long on a CPU.
    slices = [cells[:, :, i, :, j] for i in range(rows // h) for j in range(columns // w)]  # (B, H, W, C) each
    total = slices[0].contiguous()
    for part in slices[1:]:
        total = total + part
    return total.flatten(1, 2)


def _repeat_blocks(m: Tensor, plan: TokenPlan) -> Tensor:
    """(B, HW, C) to (B, N, C): each cell gets its pixel."""
    (h, w), (rows, columns) = plan.map_size, plan.grid_size
    pixels = m.reshape(plan.batch, h, 1, w, 1, -1)
    return pixels.expand(-1, -1, rows // h, -1, columns // w, -1).reshape(plan.batch, rows * columns, -1)


class _SumBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: TokenPlan) -> Tensor:
        ctx.plan = plan
        return _sum_blocks(x, plan)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _repeat_blocks(grad, ctx.plan), None


class _RepeatBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, plan: TokenPlan) -> Tensor:
        ctx.plan = plan
        return _repeat_blocks(m, plan)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sum_blocks(grad, ctx.plan), None

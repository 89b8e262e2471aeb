"""Token maps in standard operators with shapes that no value decides: for export.

Tokens that are the grid are reshaped, averaged by blocks or gathered. Else a matrix (pixels, tokens) holds the cells
that both share, unless gathering a token for every cell is cheaper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.portable_segments import link_matrix, shares
from kernels.token_map.plan import TokenPlan

# A product with a (pixels, tokens) matrix costs pixels * tokens multiplications a channel, gathering costs N_init
# reads. Up to this many multiplications a read the product is faster (onnxruntime on two cores, 1024 channels).
_PRODUCTS_PER_READ = 50


def token2map(x: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.token2map`."""
    (h0, w0), (h, w) = plan.grid_size, plan.map_size
    if plan.is_reshape:
        return x.mT.unflatten(2, plan.map_size)
    few = plan.num_pixels * plan.num_tokens <= _PRODUCTS_PER_READ * plan.token_of_cell.shape[1]
    if h0 % h or w0 % w or (few and not plan.is_grid):
        pixels = plan.pixel_of_cell.expand_as(plan.token_of_cell)
        share = shares(pixels, _ones(pixels, x), plan.num_pixels)
        matrix = link_matrix(pixels, plan.token_of_cell, share, plan.num_pixels, plan.num_tokens)
        return (x.mT.to(share.dtype) @ matrix.mT).to(x.dtype).unflatten(2, plan.map_size)  # (B, C, H, W)
    cells = x if plan.is_grid else _gather(x, plan.token_of_cell)  # (B, N_init, C)
    rows = cells.unflatten(1, (h, h0 // h, w0)).sum(2)  # (B, H, W0, C)
    m = rows.unflatten(2, (w, w0 // w)).sum(3) / (h0 // h * (w0 // w) + EPSILON)  # (B, H, W, C)
    return m.permute(0, 3, 1, 2)


def map2token(m: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.map2token`."""
    pixels = m.flatten(2)  # (B, C, HW)
    if plan.is_reshape:
        return pixels.mT
    if plan.is_grid:
        return pixels.mT[:, plan.pixel_of_cell] / (1 + EPSILON)
    token = plan.token_of_cell
    share = shares(token, _ones(token, m), plan.num_tokens)
    pixel = plan.pixel_of_cell.expand_as(token)
    matrix = link_matrix(token, pixel, share, plan.num_tokens, plan.num_pixels)
    return (matrix @ pixels.mT.to(share.dtype)).to(m.dtype)  # (B, N, C)


def upsample_tokens(x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor) -> Tensor:
    """See `kernels.upsample_tokens`."""
    weight = cell_weight.to(_precise(x))
    if fine.is_grid:
        copied = _gather(x, coarse.token_of_cell)  # (B, N_init, C)
        return (copied * (weight / (weight + EPSILON))[:, :, None]).to(x.dtype)
    share = shares(fine.token_of_cell, weight, fine.num_tokens)
    matrix = link_matrix(fine.token_of_cell, coarse.token_of_cell, share, fine.num_tokens, coarse.num_tokens)
    return (matrix @ x.to(share.dtype)).to(x.dtype)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows (B, E, C) of `x` (B, N, C) at `index` (B, E)."""
    # Numbered through the batch, because runtimes gather whole rows faster than single numbers.
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1)[(index + first).flatten()].unflatten(0, (-1, index.shape[1]))


def _ones(index: Tensor, like: Tensor) -> Tensor:
    return torch.ones(index.shape, dtype=_precise(like), device=index.device)


def _precise(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32

"""Token maps in standard operators, with shapes that depend on no values, for export.

Tokens that are the grid cells are reshaped, averaged in blocks or gathered. For other tokens, a matrix (pixels, tokens)
holds the number of cells that both share, unless it is cheaper to gather a token for every cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.segments import accumulation_dtype
from kernels.segments.portable_backend import entry_shares, weight_matrix
from kernels.token_map.plan import TokenPlan

# Per channel, a product with a (pixels, tokens) matrix costs pixels * tokens multiplications, and gathering costs
# N_init reads. Up to this many multiplications per read, the product is faster (onnxruntime on two cores, 1024
# channels).
_PRODUCTS_PER_READ = 50


def token2map(x: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.token2map`."""
    (h0, w0), (h, w) = plan.grid_size, plan.map_size
    if plan.is_reshape:
        return x.mT.unflatten(2, plan.map_size)
    product_is_faster = plan.num_pixels * plan.num_tokens <= _PRODUCTS_PER_READ * plan.token_of_cell.shape[1]
    if h0 % h or w0 % w or (product_is_faster and not plan.is_grid):
        pixels = plan.pixel_of_cell.expand_as(plan.token_of_cell)
        share = entry_shares(pixels, _ones(pixels, x), plan.num_pixels)
        matrix = weight_matrix(pixels, plan.token_of_cell, share, plan.num_pixels, plan.num_tokens)
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
    share = entry_shares(token, _ones(token, m), plan.num_tokens)
    pixel = plan.pixel_of_cell.expand_as(token)
    matrix = weight_matrix(token, pixel, share, plan.num_tokens, plan.num_pixels)
    return (matrix @ pixels.mT.to(share.dtype)).to(m.dtype)  # (B, N, C)


def upsample_tokens(x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor) -> Tensor:
    """See `kernels.upsample_tokens`."""
    weight = cell_weight.to(accumulation_dtype(x.dtype))
    if fine.is_grid:
        copied = _gather(x, coarse.token_of_cell)  # (B, N_init, C)
        return (copied * (weight / (weight + EPSILON))[:, :, None]).to(x.dtype)
    share = entry_shares(fine.token_of_cell, weight, fine.num_tokens)
    matrix = weight_matrix(fine.token_of_cell, coarse.token_of_cell, share, fine.num_tokens, coarse.num_tokens)
    return (matrix @ x.to(share.dtype)).to(x.dtype)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows (B, E, C) of `x` (B, N, C) at `index` (B, E)."""
    # Indices are numbered across the batch, because runtimes gather whole rows faster than single numbers.
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1)[(index + first).flatten()].unflatten(0, (-1, index.shape[1]))


def _ones(index: Tensor, like: Tensor) -> Tensor:
    return torch.ones(index.shape, dtype=accumulation_dtype(like.dtype), device=index.device)

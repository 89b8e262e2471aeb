"""Token maps as products with membership matrices: the specification.

`tokens[b, cell, n]` is 1 where the cell belongs to token n, and `pixels[cell, p]` is 1 where it lies in pixel p.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import one_hot

from kernels.constants import EPSILON
from kernels.token_map.plan import TokenPlan


def token2map(x: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.token2map`."""
    if plan.is_reshape:
        return x.mT.unflatten(2, plan.map_size)  # (B, C, H, W)
    tokens = one_hot(plan.token_of_cell, plan.num_tokens).to(x.dtype)  # (B, N_init, N)
    pixels = one_hot(plan.pixel_of_cell, plan.num_pixels).to(x.dtype)  # (N_init, HW)
    cells_of_pixel = pixels.sum(0)[:, None]  # (HW, 1)
    m = pixels.T @ (tokens @ x) / (cells_of_pixel + EPSILON)  # (B, HW, C)
    return m.mT.unflatten(2, plan.map_size)  # (B, C, H, W)


def map2token(m: Tensor, plan: TokenPlan) -> Tensor:
    """See `kernels.map2token`."""
    m = m.flatten(2).mT  # (B, HW, C)
    if plan.is_reshape:
        return m
    tokens = one_hot(plan.token_of_cell, plan.num_tokens).to(m.dtype)  # (B, N_init, N)
    pixels = one_hot(plan.pixel_of_cell, plan.num_pixels).to(m.dtype)  # (N_init, HW)
    cells_of_token = tokens.sum(1)[:, :, None]  # (B, N, 1)
    return tokens.mT @ (pixels @ m) / (cells_of_token + EPSILON)  # (B, N, C)


def upsample_tokens(x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor) -> Tensor:
    """See `kernels.upsample_tokens`."""
    coarse_tokens = one_hot(coarse.token_of_cell, coarse.num_tokens).to(x.dtype)  # (B, N_init, N_coarse)
    fine_tokens = one_hot(fine.token_of_cell, fine.num_tokens).to(x.dtype)  # (B, N_init, N_fine)
    weight = cell_weight.to(x.dtype)[:, :, None]  # (B, N_init, 1)
    total = fine_tokens.mT @ weight + EPSILON  # (B, N_fine, 1)
    return fine_tokens.mT @ (weight * (coarse_tokens @ x)) / total  # (B, N_fine, C)

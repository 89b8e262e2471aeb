"""The token operations with the released code's roundings, to tell its roundings from other differences.

The released code computes its sparse products, which it uses where they take fewer multiplications, in float32
whatever the dtype. Figures that it computed in float64 therefore carry float32 roundings, which its deeper layers
enlarge to more than 1e-6. With the same roundings at the same places ours must agree to 1e-6.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tcformer.models import block, layers, mta
from tcformer.models.ops import TokenPlan


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network use these operations during a test."""
    for module in (layers, block, mta):
        for operation in (token2map, map2token, upsample_tokens, token_conv):
            monkeypatch.setattr(module, operation.__name__, operation, raising=False)


def token2map(x: Tensor, plan: TokenPlan) -> Tensor:
    """(B, N, C) to (B, C, H, W)."""
    if plan.is_reshape:
        return x.mT.unflatten(2, plan.map_size)
    m = _means(_pixels(plan), plan.token_of_cell, torch.ones_like(plan.token_of_cell), x, plan.num_pixels)
    return m.mT.unflatten(2, plan.map_size)


def map2token(m: Tensor, plan: TokenPlan) -> Tensor:
    """(B, C, H, W) to (B, N, C)."""
    pixels = m.flatten(2).mT
    if plan.is_reshape:
        return pixels
    return _means(plan.token_of_cell, _pixels(plan), torch.ones_like(plan.token_of_cell), pixels, plan.num_tokens)


def upsample_tokens(x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor) -> Tensor:
    """(B, N_coarse, C) to (B, N_fine, C)."""
    return _means(fine.token_of_cell, coarse.token_of_cell, cell_weight, x, fine.num_tokens)


def token_conv(
    x: Tensor,
    plan: TokenPlan,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    *,
    gelu: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """(B, N, C) to (B, N, C)."""
    y = map2token(F.conv2d(token2map(x, plan), weight, bias, padding=1, groups=x.shape[2]), plan)
    y = y if skip is None else y + x * skip
    return F.gelu(y) if gelu else y


def _pixels(plan: TokenPlan) -> Tensor:
    return plan.pixel_of_cell.expand_as(plan.token_of_cell)


def _means(target: Tensor, source: Tensor, weight: Tensor, x: Tensor, rows: int) -> Tensor:
    """Weighted means over the cells of each target row of the source rows (B, columns, C) that the cells link to."""
    batch, columns, _ = x.shape
    cells = target.shape[1]
    sparse = cells < rows * columns
    dtype = torch.float32 if sparse else x.dtype
    image = torch.arange(batch)[:, None].expand(batch, cells)
    value = weight.detach().to(dtype).flatten()
    if sparse:
        place = torch.stack([(target + image * rows).flatten(), (source + image * columns).flatten()])
        shape = (batch * rows, batch * columns)
        total = torch.sparse_coo_tensor(place, value, shape) @ torch.ones(batch * columns, 1, dtype=dtype) + 1e-6
        means = torch.sparse_coo_tensor(place, value / total[place[0], 0], shape) @ x.flatten(0, 1).to(dtype)
        return means.unflatten(0, (batch, rows)).to(x.dtype)
    place = torch.stack([image, target, source]).flatten(1)
    matrix = torch.sparse_coo_tensor(place, value, (batch, rows, columns)).to_dense()
    return matrix / (matrix.sum(2, keepdim=True) + 1e-6) @ x

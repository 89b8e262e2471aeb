"""Attention with a bias per key, of standard operators, so that autograd, export and compilers see through it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Head dimensions that GPU kernels take are multiples of this.
_CHANNELS = 8
# Below this a key is as good as absent, and in half precision the number is still finite when split in two.
_LEAST_BIAS = -1e4


def attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + key_bias) v.

    Args:
        q: (B, heads, Nq, d), any floating dtype.
        k, v: (B, heads, Nk, d).
        key_bias: (B, Nk) added to the logits of each key, for all queries and heads; -inf takes a key out. On
            GPUs values below -1e4 count as -1e4.

    Returns:
        (B, heads, Nq, d), differentiable in all four.

    Raises:
        ValueError: `key_bias` does not fit.

    Source: TCFormer (Zeng et al., CVPR 2022), equation 5.
    """
    if key_bias is None:
        return F.scaled_dot_product_attention(q, k, v)
    if key_bias.shape != (k.shape[0], k.shape[2]):
        raise ValueError(f"key_bias must be {(k.shape[0], k.shape[2])}, but it is {tuple(key_bias.shape)}")
    if q.is_cuda:
        return _with_columns(q, k, v, key_bias)
    bias = key_bias[:, None, None, :].to(q.dtype)  # (B, 1, 1, Nk)
    if torch.is_grad_enabled() and key_bias.requires_grad:
        # The fused kernel has no gradient for its mask. With the few keys of spatial reduction the logits are small.
        logits = torch.matmul(q * q.shape[3] ** -0.5, k.mT) + bias  # (B, heads, Nq, Nk)
        return torch.matmul(logits.softmax(3), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _with_columns(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
    """The bias as two more channels of the keys, 1 in the queries: fused kernels then also give its gradient.

    Two, because a product of bfloat16 or tf32 numbers keeps too few digits of one: the second holds what rounding
    the first to bfloat16 loses.
    """
    d = q.shape[3]
    bias = key_bias.float().clamp(min=_LEAST_BIAS) * d**0.5  # divided by sqrt(d) again in the logits
    high = bias.detach().bfloat16().float()
    # The gradient goes through the first column; the second is a constant.
    first = (bias + (high - bias).detach()).to(q.dtype)
    second = (bias.detach() - high).to(q.dtype)
    zero = torch.zeros_like(second)
    padding = -d % _CHANNELS
    width = 2 + (padding - 2) % _CHANNELS
    columns = torch.stack([first, second] + [zero] * (width - 2), 2)  # (B, Nk, width)
    k = torch.cat([k, columns[:, None].expand(-1, k.shape[1], -1, -1).to(k.dtype)], 3)
    ones = F.pad(q.new_ones(2), (0, width - 2)).expand(*q.shape[:3], width)
    y = F.scaled_dot_product_attention(torch.cat([q, ones], 3), k, F.pad(v, (0, width)), scale=d**-0.5)
    return y[..., :d]

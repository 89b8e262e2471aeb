"""Attention with a bias per key, in standard operators, which autograd, export and compilers can trace."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The fused GPU kernels need head dimensions that are multiples of this.
_CHANNEL_MULTIPLE = 8
# With this bias, a key has practically no weight. The two halves into which the bias is split are finite in half
# precision.
_MIN_BIAS = -1e4


def attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + key_bias) v.

    Args:
        q: (B, heads, Nq, d), any floating dtype.
        k, v: (B, heads, Nk, d).
        key_bias: (B, Nk) added to the logits of each key, for all queries and heads; -inf excludes a key. On GPUs,
            values below -1e4 count as -1e4.

    Returns:
        (B, heads, Nq, d), differentiable in all arguments.

    Raises:
        ValueError: the shape of `key_bias` is wrong.

    Source: TCFormer (Zeng et al., CVPR 2022), equation 5.
    """
    if key_bias is None:
        return F.scaled_dot_product_attention(q, k, v)
    if key_bias.shape != (k.shape[0], k.shape[2]):
        raise ValueError(f"key_bias must be {(k.shape[0], k.shape[2])}, but it is {tuple(key_bias.shape)}")
    if q.is_cuda:
        return _with_bias_channels(q, k, v, key_bias)
    bias = key_bias[:, None, None, :].to(q.dtype)  # (B, 1, 1, Nk)
    if torch.is_grad_enabled() and key_bias.requires_grad:
        # The fused kernel has no gradient for its mask. With the few keys of spatial reduction, the logits are small.
        logits = torch.matmul(q * q.shape[3] ** -0.5, k.mT) + bias  # (B, heads, Nq, Nk)
        return torch.matmul(logits.softmax(3), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _with_bias_channels(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
    """Attention with the bias as two more channels of the keys, so that fused kernels also compute its gradient.

    The queries are 1 in these channels. There are two of them because one alone would lose too many digits in a product
    of bfloat16 or tf32 numbers: the second holds the rounding error of the first in bfloat16.
    """
    d = q.shape[3]
    bias = key_bias.float().clamp(min=_MIN_BIAS) * d**0.5  # the logits are divided by sqrt(d)
    high = bias.detach().bfloat16().float()
    # The gradient flows through the first channel; the second is a constant.
    first = (bias + (high - bias).detach()).to(q.dtype)
    second = (bias.detach() - high).to(q.dtype)
    zero = torch.zeros_like(second)
    padding = -d % _CHANNEL_MULTIPLE
    width = 2 + (padding - 2) % _CHANNEL_MULTIPLE
    bias_channels = torch.stack([first, second] + [zero] * (width - 2), 2)  # (B, Nk, width)
    k = torch.cat([k, bias_channels[:, None].expand(-1, k.shape[1], -1, -1).to(k.dtype)], 3)
    ones = F.pad(q.new_ones(2), (0, width - 2)).expand(*q.shape[:3], width)
    y = F.scaled_dot_product_attention(torch.cat([q, ones], 3), k, F.pad(v, (0, width)), scale=d**-0.5)
    return y[..., :d]

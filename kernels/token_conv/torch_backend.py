"""Token convolution in plain PyTorch, forward and backward. For the backward pass, only `x` is kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.segments import segment_sum


def token_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    links: list[Tensor],
    map_size: tuple[int, int],
    gelu: bool,
) -> Tensor:
    """See `kernels.token_conv`.

    Args:
        x: (B, N, C).
        weight, bias, skip: (C, 1, 3, 3), (C,), (C,), in the dtype of `x`.
        links: the tensors of a plan's `by_pixel` and `by_token`; empty if the tokens are the pixels of the map.
        map_size: (H, W).
        gelu: whether GELU is applied to the result.
    """
    y = _convolve(_to_map(x, links, map_size), x, weight, bias, skip, links)
    return F.gelu(y) if gelu else y


def token_conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    links: list[Tensor],
    map_size: tuple[int, int],
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients with respect to x, weight, bias and skip, for `grad_y` (B, N, C)."""
    m = _to_map(x, links, map_size)
    if gelu:
        grad_y = torch.ops.aten.gelu_backward(grad_y, _convolve(m, x, weight, bias, skip, links))
    grad_m = grad_y
    if links:
        index, offsets, _, backward_weight = links[:4]
        grad_m = _sum(grad_y, index, offsets, backward_weight)  # (B, HW, C)
    grad_m, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        _as_map(grad_m, map_size), m, _with_skip(weight, skip, links), [x.shape[2]], [1, 1], [1, 1], [1, 1], False,
        [0, 0], x.shape[2], [True, True, True],
    )  # fmt: skip
    grad_x = grad_m.permute(0, 2, 3, 1).flatten(1, 2)
    grad_skip = None
    if not links:
        grad_skip = grad_weight[:, 0, 1, 1].clone()
    else:
        index, offsets, _, backward_weight = links[4:]
        grad_x = _sum(grad_x, index, offsets, backward_weight)
        if skip is not None:
            grad_x = torch.addcmul(grad_x, grad_y, skip)
            grad_skip = (grad_y * x).sum((0, 1))
    return grad_x.contiguous(), grad_weight.contiguous(), grad_bias, grad_skip


def _to_map(x: Tensor, links: list[Tensor], map_size: tuple[int, int]) -> Tensor:
    """Map (B, C, H, W) of the tokens (B, N, C), in channels-last memory format."""
    return _as_map(_sum(x, *links[:3]) if links else x, map_size)


def _convolve(m: Tensor, x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None, links: list[Tensor]) -> Tensor:
    """The result (B, N, C) before the activation, for tokens `x` with the map `m`."""
    m = F.conv2d(m, _with_skip(weight, skip, links), bias, padding=1, groups=x.shape[2])
    y = m.permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C)
    if not links:
        return y.contiguous()
    y = _sum(y, *links[4:7])
    return y if skip is None else torch.addcmul(y, x, skip)


def _with_skip(weight: Tensor, skip: Tensor | None, links: list[Tensor]) -> Tensor:
    """The weight, with the skip factor added to its middle tap if the tokens are the pixels of the map."""
    return weight if links or skip is None else weight + F.pad(skip[:, None, None, None], (1, 1, 1, 1))


def _sum(x: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    return segment_sum(x.flatten(0, 1), index, offsets, weight, "torch").unflatten(0, (x.shape[0], -1))


def _as_map(m: Tensor, map_size: tuple[int, int]) -> Tensor:
    return m.unflatten(1, map_size).permute(0, 3, 1, 2)

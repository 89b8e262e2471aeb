"""Token convolution: the public function and the operator behind it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels.backend import (
    backend_module,
    choose_backend,
    refuse_second_derivative,
    traceable_backend,
    without_autocast,
)
from kernels.token_conv import reference_backend, torch_backend
from kernels.token_map import TokenPlan


def token_conv(
    x: Tensor,
    plan: TokenPlan,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    *,
    gelu: bool = False,
    overwrite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Depth-wise 3x3 convolution of tokens on their feature map: skip * x + map2token(conv(token2map(x)) + bias).

    For the gradient, only `x` is kept; the map and the input of the activation are computed again.

    Args:
        x: (B, N, C) token features, any floating dtype.
        plan: plan of the tokens for the map size.
        weight: (C, 1, 3, 3), stride 1, zero padding of 1.
        bias: (C,).
        skip: (C,) factor of the token's own features, or None for 0.
        gelu: apply exact GELU to the result.
        overwrite: `x` is not used any more, so the result may take its place, which saves the time and the memory of a
            new tensor. In C++ without gradients it does; everywhere else this changes nothing.
        backend: one of `kernels.backend.BACKENDS`; by default the value of the environment variable TCFORMER_KERNELS,
            else the fastest one for the device.

    Returns:
        (B, N, C), dtype of `x`; differentiable in `x`, `weight`, `bias` and `skip`.

    Raises:
        ValueError: the shapes do not match.

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.3, in the arithmetic of its released code.
    """
    if x.ndim != 3 or x.shape[:2] != (plan.batch, plan.num_tokens):
        raise ValueError(f"x must be (B={plan.batch}, N={plan.num_tokens}, C), but it is {tuple(x.shape)}")
    channels = x.shape[2]
    if (
        weight.shape != (channels, 1, 3, 3)
        or bias.shape != (channels,)
        or (skip is not None and skip.shape != bias.shape)
    ):
        raise ValueError(
            f"expected weight ({channels}, 1, 3, 3), bias and skip ({channels},), but they are {tuple(weight.shape)}, "
            f"{tuple(bias.shape)} and {None if skip is None else tuple(skip.shape)}"
        )
    weight, bias, skip = weight.to(x.dtype), bias.to(x.dtype), None if skip is None else skip.to(x.dtype)
    traceable = traceable_backend(backend)
    averages_blocks = plan.by_pixel is None and not plan.is_reshape  # no network has these, so no fast path does
    if traceable or averages_blocks:
        return reference_backend.token_conv(x, plan, weight, bias, skip, gelu, traceable or backend)
    cells, links = plan_tensors(plan)
    weight, bias, skip = weight.contiguous(), bias.contiguous(), None if skip is None else skip.contiguous()
    if overwrite and _can_overwrite(x, backend):
        torch.ops.tcformer.token_conv_(x, weight, bias, skip, cells, links, plan.map_size, gelu)
        return x
    return torch.ops.tcformer.token_conv(x, weight, bias, skip, cells, links, plan.map_size, gelu, backend or "")


@torch.library.custom_op("tcformer::token_conv", mutates_args=())
def _token_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    cells: list[Tensor],
    links: list[Tensor],
    map_size: list[int],
    gelu: bool,
    backend: str,
) -> Tensor:
    size = (map_size[0], map_size[1])
    with without_autocast(x.device):
        x = x.contiguous()
        fused = _fused_backend(x, backend)
        if fused and links:
            return fused.token_conv(x, weight, bias, _skip_or_zeros(skip, bias), *cells, size, gelu)
        if fused and hasattr(fused, "grid_conv"):  # not on GPUs, where PyTorch's convolution is fast enough
            return fused.grid_conv(x, weight, bias, skip, size, gelu)
        return torch_backend.token_conv(x, weight, bias, skip, links, size, gelu)


@_token_conv.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("tcformer::token_conv_", mutates_args=("x",))
def _overwrite(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    cells: list[Tensor],
    links: list[Tensor],
    map_size: list[int],
    gelu: bool,
) -> None:
    """In C++, of x that is contiguous, without gradients: the result takes the place of x."""
    native = backend_module("token_conv", "native")
    size = (map_size[0], map_size[1])
    if links:
        native.token_conv(x, weight, bias, _skip_or_zeros(skip, bias), *cells, size, gelu, out=x)
    else:
        native.grid_conv(x, weight, bias, skip, size, gelu, out=x)


def _can_overwrite(x: Tensor, backend: str | None) -> bool:
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.is_contiguous()
        and x.dtype == torch.float32
        and choose_backend(backend or "", x.device) == "native"
    )


@torch.library.custom_op("tcformer::token_conv_backward", mutates_args=())
def _token_conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    cells: list[Tensor],
    links: list[Tensor],
    map_size: list[int],
    gelu: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to x, weight, bias and skip; the last one has no meaning if there is no skip."""
    size = (map_size[0], map_size[1])
    with without_autocast(x.device):
        x, grad = x.contiguous(), grad.contiguous()
        fused = _fused_backend(x, backend)
        if fused and links:
            return fused.token_conv_backward(grad, x, weight, bias, _skip_or_zeros(skip, bias), *cells, size, gelu)
        grads: tuple[Tensor, Tensor, Tensor, Tensor | None]
        if fused and hasattr(fused, "grid_conv"):
            grads = fused.grid_conv_backward(grad, x, weight, bias, skip, size, gelu)
        else:
            grads = torch_backend.token_conv_backward(grad, x, weight, bias, skip, links, size, gelu)
        grad_x, grad_weight, grad_bias, grad_skip = grads
        return grad_x, grad_weight, grad_bias, torch.zeros_like(bias) if grad_skip is None else grad_skip


@_token_conv_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    contiguous = torch.contiguous_format
    grad_x, grad_weight = (torch.empty_like(t, memory_format=contiguous) for t in (x, weight))
    return grad_x, grad_weight, torch.empty_like(bias), torch.empty_like(bias)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, skip, cells, links, *ctx.options = inputs
    ctx.counts = (len(cells), len(links))
    ctx.save_for_backward(x, weight, bias, skip, *cells, *links)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, bias, skip, *plan = ctx.saved_tensors
    num_cells, num_links = ctx.counts
    grads = torch.ops.tcformer.token_conv_backward(
        grad, x, weight, bias, skip, plan[:num_cells], plan[num_cells:], *ctx.options
    )
    grad_skip = None if skip is None else grads[3]
    return *grads[:3], grad_skip, [None] * num_cells, [None] * num_links, None, None, None


_token_conv_backward.register_autograd(refuse_second_derivative)
_token_conv.register_autograd(_gradient, setup_context=_context)


def plan_tensors(plan: TokenPlan) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of a plan as operator arguments: cells for the fused backends, links for plain PyTorch.

    There are no links if the tokens are the pixels of the map.
    """
    cells = [
        plan.token_of_cell,
        plan.token_cells,
        plan.token_offsets,
        plan.pixel_of_cell,
        plan.pixel_cells,
        plan.pixel_offsets,
    ]
    if plan.by_pixel is None or plan.by_token is None:
        return cells, []
    cells[0] = plan.token_of_cell.contiguous()  # C++ and Triton ignore strides
    return cells, [
        tensor
        for links in (plan.by_pixel, plan.by_token)
        for tensor in (links.index, links.offsets, links.mean_weight, links.backward_weight)
    ]


def _fused_backend(x: Tensor, backend: str) -> ModuleType | None:
    """The backend module that computes all steps at once, if it is the one to use."""
    name = choose_backend(backend, x.device)
    if name == "native" and x.dtype == torch.float32:
        return backend_module("token_conv", "native")
    if name == "triton" and x.dtype != torch.float64:
        return backend_module("token_conv", "triton")
    return None


def _skip_or_zeros(skip: Tensor | None, bias: Tensor) -> Tensor:
    return torch.zeros_like(bias) if skip is None else skip

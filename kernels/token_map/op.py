"""Token maps: the public functions and the operators behind them.

There are three cases, the cheapest first. Tokens that still are the grid cells are reshaped on a map of the grid's
size, and averaged in blocks on a map whose size divides the grid's. All others are gathered and summed by segment.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.backend import backend_module, choose_backend, refuse_second_derivative, traceable_backend
from kernels.constants import EPSILON
from kernels.segments import accumulation_dtype, row_dots, segment_sum, segment_total
from kernels.token_map.plan import Links, TokenPlan


def token2map(x: Tensor, plan: TokenPlan, *, backend: str | None = None) -> Tensor:
    """Draw tokens on a feature map.

    A pixel is the mean, over the grid cells in it, of the features of the tokens that own these cells (divided by
    count + 1e-6). Tokens that still are the grid cells are reshaped if the map has the grid's size.

    Args:
        x: (B, N, C) token features, any floating dtype.
        plan: plan of the tokens for the map size.
        backend: one of `kernels.backend.BACKENDS`; by default the value of the environment variable TCFORMER_KERNELS,
            else the fastest one for the device.

    Returns:
        (B, C, H, W) map, same dtype, contiguous in channels-last memory format.

    Raises:
        ValueError: the shape of `x` does not match the plan.

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.3, in the arithmetic of its released code.
    """
    if x.ndim != 3 or x.shape[:2] != (plan.batch, plan.num_tokens):
        raise ValueError(f"x must be (B={plan.batch}, N={plan.num_tokens}, C), but it is {tuple(x.shape)}")
    if traceable := traceable_backend(backend):
        return backend_module("token_map", traceable).token2map(x, plan)
    if plan.is_reshape:
        m = x
    elif plan.by_pixel is None:
        (rows, columns), (h, w) = plan.grid_size, plan.map_size
        cells = rows // h * (columns // w)
        m = torch.ops.tcformer.sum_blocks(x, plan.grid_size, plan.map_size, 1 / (cells + EPSILON))
    else:
        m = _means(x, plan.by_pixel, plan.by_token, backend)  # (B, HW, C)
    return m.unflatten(1, plan.map_size).permute(0, 3, 1, 2)  # (B, C, H, W)


def map2token(m: Tensor, plan: TokenPlan, *, backend: str | None = None) -> Tensor:
    """Read token features from a feature map.

    A token is the mean, over its grid cells, of the map pixels in which they lie (divided by count + 1e-6); a token
    without cells is 0. Tokens that still are the grid cells are reshaped if the map has the grid's size.

    Args:
        m: (B, C, H, W) feature map, any floating dtype; fastest in channels-last memory format.
        plan: plan of the tokens for the map size.
        backend: see `token2map`.

    Returns:
        (B, N, C) token features, same dtype.

    Raises:
        ValueError: the shape of `m` does not match the plan.
    """
    if m.ndim != 4 or m.shape[0] != plan.batch or tuple(m.shape[2:]) != plan.map_size:
        (h, w) = plan.map_size
        raise ValueError(f"m must be (B={plan.batch}, C, H={h}, W={w}), but it is {tuple(m.shape)}")
    if traceable := traceable_backend(backend):
        return backend_module("token_map", traceable).map2token(m, plan)
    pixels = m.permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C)
    if plan.is_reshape:
        return pixels
    if plan.by_token is None:
        return torch.ops.tcformer.repeat_blocks(pixels, plan.grid_size, plan.map_size, 1 / (1 + EPSILON))
    return _means(pixels, plan.by_token, plan.by_pixel, backend)  # (B, N, C)


def upsample_tokens(
    x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor, *, backend: str | None = None
) -> Tensor:
    """Copy coarse tokens to the finer tokens from which they were merged.

    A fine token is the weighted mean, over its grid cells, of the coarse tokens that own these cells (divided by the
    sum of weights + 1e-6).

    Args:
        x: (B, N_coarse, C) features of the coarse tokens, any floating dtype.
        coarse: plan of the coarse tokens. The map sizes of both plans are not used.
        fine: plan of the fine tokens, over the same grid.
        cell_weight: (B, N_init) weight of each grid cell in its fine token.
        backend: see `token2map`.

    Returns:
        (B, N_fine, C), dtype of `x`; differentiable in `x` and `cell_weight`.

    Raises:
        ValueError: the shapes do not match the plans, or the plans have different grids.
    """
    if x.ndim != 3 or x.shape[:2] != (coarse.batch, coarse.num_tokens):
        raise ValueError(f"x must be (B={coarse.batch}, N={coarse.num_tokens}, C), but it is {tuple(x.shape)}")
    if coarse.grid_size != fine.grid_size or coarse.batch != fine.batch:
        raise ValueError("the coarse and the fine tokens must come from the same batch and grid")
    if cell_weight.shape != fine.token_of_cell.shape:
        raise ValueError(f"cell_weight must be {tuple(fine.token_of_cell.shape)}, but it is {tuple(cell_weight.shape)}")
    if traceable := traceable_backend(backend):
        return backend_module("token_map", traceable).upsample_tokens(x, coarse, fine, cell_weight)
    return torch.ops.tcformer.upsample_tokens(
        x,
        cell_weight.to(accumulation_dtype(x.dtype)),
        coarse.token_of_cell,
        coarse.token_cells,
        coarse.token_offsets,
        fine.token_of_cell,
        fine.token_cells,
        fine.token_offsets,
        backend or "",
    )[0]


def _means(x: Tensor, links: Links, reverse: Links | None, backend: str | None) -> Tensor:
    """Means (B, rows, C) of the rows of `x` (B, others, C) that are linked to each row.

    `reverse` holds the same links, sorted by the rows of `x`.
    """
    assert reverse is not None
    return torch.ops.tcformer.segment_sum(
        x,
        links.index,
        links.offsets,
        links.mean_weight,
        reverse.index,
        reverse.offsets,
        reverse.backward_weight,
        backend or "",
    )


# Sums by segment. The operator gets the links in both directions, because its derivative is the same sum in reverse.


@torch.library.custom_op("tcformer::segment_sum", mutates_args=())
def _segment_sum(
    x: Tensor,
    index: Tensor,
    offsets: Tensor,
    weight: Tensor,
    back_index: Tensor,
    back_offsets: Tensor,
    back_weight: Tensor,
    backend: str,
) -> Tensor:
    """From (B, others, C) to (B, rows, C); see `_means`."""
    name = choose_backend(backend, x.device)
    return segment_sum(x.flatten(0, 1), index, offsets, weight, name).unflatten(0, (x.shape[0], -1))


@_segment_sum.register_fake
def _(x: Tensor, index: Tensor, offsets: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], (offsets.shape[0] - 1) // x.shape[0], x.shape[2])


def _segment_sum_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:7])
    ctx.backend = inputs[7]


def _segment_sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    return torch.ops.tcformer.segment_sum(grad, *saved[3:], *saved[:3], ctx.backend), *[None] * 7


_segment_sum.register_autograd(_segment_sum_backward, setup_context=_segment_sum_context)


# Tokens that are the grid cells, on maps whose size divides the grid's.


@torch.library.custom_op("tcformer::sum_blocks", mutates_args=())
def _sum_blocks(x: Tensor, grid_size: list[int], map_size: list[int], factor: float) -> Tensor:
    """From grid cells (B, N, C) to pixels (B, HW, C): the sum over each pixel's cells, times `factor`."""
    (h0, w0), (h, w) = grid_size, map_size
    cells = x.reshape(x.shape[0], h, h0 // h, w, w0 // w, -1)
    # Added slice by slice, because `cells.sum((2, 4))` takes forty times as long on a CPU.
    slices = [cells[:, :, i, :, j] for i in range(h0 // h) for j in range(w0 // w)]  # (B, H, W, C) each
    total = slices[0] * factor
    for part in slices[1:]:
        total.add_(part, alpha=factor)
    return total.flatten(1, 2)


@torch.library.custom_op("tcformer::repeat_blocks", mutates_args=())
def _repeat_blocks(m: Tensor, grid_size: list[int], map_size: list[int], factor: float) -> Tensor:
    """From pixels (B, HW, C) to grid cells (B, N, C): each cell gets its pixel, times `factor`."""
    (h0, w0), (h, w) = grid_size, map_size
    pixels = (m * factor).reshape(m.shape[0], h, 1, w, 1, -1)
    cells = m.new_empty(m.shape[0], h, h0 // h, w, w0 // w, m.shape[2])
    return cells.copy_(pixels).view(m.shape[0], h0 * w0, -1)


@_sum_blocks.register_fake
def _(x: Tensor, grid_size: list[int], map_size: list[int], factor: float) -> Tensor:
    return x.new_empty(x.shape[0], map_size[0] * map_size[1], x.shape[2])


@_repeat_blocks.register_fake
def _(m: Tensor, grid_size: list[int], map_size: list[int], factor: float) -> Tensor:
    return m.new_empty(m.shape[0], grid_size[0] * grid_size[1], m.shape[2])


def _blocks_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.arguments = inputs[1:]


def _sum_blocks_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.tcformer.repeat_blocks(grad, *ctx.arguments), None, None, None


def _repeat_blocks_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.tcformer.sum_blocks(grad, *ctx.arguments), None, None, None


_sum_blocks.register_autograd(_sum_blocks_backward, setup_context=_blocks_context)
_repeat_blocks.register_autograd(_repeat_blocks_backward, setup_context=_blocks_context)


# Up-sampling.


@torch.library.custom_op("tcformer::upsample_tokens", mutates_args=())
def _upsample(
    x: Tensor,
    cell_weight: Tensor,
    coarse_of_cell: Tensor,
    coarse_cells: Tensor,
    coarse_offsets: Tensor,
    fine_of_cell: Tensor,
    fine_cells: Tensor,
    fine_offsets: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fine tokens (B, N_fine, C), share of each cell in its fine token (B, N_init), and 1 / total (B * N_fine,)."""
    name, batch = choose_backend(backend, x.device), x.shape[0]
    order = _flat_cells(fine_cells, fine_of_cell)
    scale = 1 / (segment_total(cell_weight.flatten()[order], fine_offsets, name) + EPSILON)  # (B * N_fine,)
    fine = _flat_rows(fine_of_cell, (fine_offsets.shape[0] - 1) // batch)
    coarse = _flat_rows(coarse_of_cell, x.shape[1])
    share = cell_weight.flatten() * scale[fine]  # (B * N_init,)
    y = segment_sum(x.flatten(0, 1), coarse[order], fine_offsets, share[order], name)
    return y.unflatten(0, (batch, -1)), share.view_as(cell_weight), scale


@_upsample.register_fake
def _(
    x: Tensor,
    cell_weight: Tensor,
    coarse_of_cell: Tensor,
    coarse_cells: Tensor,
    coarse_offsets: Tensor,
    fine_of_cell: Tensor,
    fine_cells: Tensor,
    fine_offsets: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    scale = cell_weight.new_empty(fine_offsets.shape[0] - 1)
    y = x.new_empty(x.shape[0], scale.shape[0] // x.shape[0], x.shape[2])
    return y, torch.empty_like(cell_weight), scale


@torch.library.custom_op("tcformer::upsample_tokens_backward", mutates_args=())
def _upsample_backward(
    grad: Tensor,
    x: Tensor,
    share: Tensor,
    scale: Tensor,
    coarse_of_cell: Tensor,
    coarse_cells: Tensor,
    coarse_offsets: Tensor,
    fine_of_cell: Tensor,
    fine_cells: Tensor,
    fine_offsets: Tensor,
    with_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and cell_weight; the second is empty unless `with_weight`."""
    name, batch = choose_backend(backend, x.device), x.shape[0]
    rows = grad.flatten(0, 1)
    fine = _flat_rows(fine_of_cell, grad.shape[1])
    order = _flat_cells(coarse_cells, coarse_of_cell)
    grad_x = segment_sum(rows, fine[order], coarse_offsets, share.flatten()[order], name)
    grad_x = grad_x.unflatten(0, (batch, -1))
    if not with_weight:
        return grad_x, share.new_empty(0)
    coarse = _flat_rows(coarse_of_cell, x.shape[1])
    dots = row_dots(x.flatten(0, 1), coarse, rows, fine, name)  # (B * N_init,)
    order = _flat_cells(fine_cells, fine_of_cell)
    common = segment_total((share.flatten() * dots)[order], fine_offsets, name)  # (B * N_fine,)
    return grad_x, ((dots - common[fine]) * scale[fine]).view_as(share)


@_upsample_backward.register_fake
def _(grad: Tensor, x: Tensor, share: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    with_weight: bool = arguments[-2]
    return torch.empty_like(x), torch.empty_like(share) if with_weight else share.new_empty(0)


def _upsample_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, *plans, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(x, output[1], output[2], *plans)


def _upsample_gradient(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    with_weight = ctx.needs_input_grad[1]
    grad_x, grad_weight = torch.ops.tcformer.upsample_tokens_backward(
        grad.contiguous(), *ctx.saved_tensors, with_weight, ctx.backend
    )
    return grad_x, grad_weight if with_weight else None, *[None] * 7


_upsample_backward.register_autograd(refuse_second_derivative)
_upsample.register_autograd(_upsample_gradient, setup_context=_upsample_context)


def _flat_rows(row: Tensor, num_rows: int) -> Tensor:
    """Rows (B * n,) numbered across the batch, from rows (B, n) numbered within each image."""
    return (row + torch.arange(row.shape[0], device=row.device)[:, None] * num_rows).flatten()


def _flat_cells(cells: Tensor, like: Tensor) -> Tensor:
    """Cells (B * n,) numbered across the batch, from cells (B * n,) numbered within each image; `like` is (B, n)."""
    return _flat_rows(cells.view(like.shape), like.shape[1])

"""The C++ functions as functions of tensors.

Tensors must be contiguous CPU tensors of the dtypes given, and fit each other: nothing is checked here and
nothing has a gradient. Results do not depend on the number of threads, nor an image's on the rest of its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.native.library import call


def dpc_knn(x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`.

    Args:
        x: (B, N, C) float32.
        num_clusters: M, from 1 to N.
        k: at least 1; all real tokens if there are fewer.
        mask: (B, N) bool, true for real tokens. The others influence nothing, bit for bit.

    Returns:
        centres: (B, M) int64, ascending. If an image has fewer real tokens than M, all of them and its first
            masked ones.
        assign: (B, N) int64, 0 for masked tokens.
    """
    batch, tokens, channels = x.shape
    centres = torch.empty(batch, num_clusters, dtype=torch.int64)
    assign = torch.empty(batch, tokens, dtype=torch.int64)
    call("tcformer_dpc_knn", x, mask, batch, tokens, channels, num_clusters, k, centres, assign)
    return centres, assign


def token_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor,
    token_of_cell: Tensor,
    token_cells: Tensor,
    token_offsets: Tensor,
    pixel_of_cell: Tensor,
    pixel_cells: Tensor,
    pixel_offsets: Tensor,
    map_size: tuple[int, int],
    gelu: bool,
) -> Tensor:
    """skip * x + map2token(conv(token2map(x)) + bias), then exact GELU if wanted; see `kernels.token_conv`.

    Args:
        x: (B, N, C) float32.
        weight: (C, 1, 3, 3) float32, depth-wise.
        bias, skip: (C,) float32.
        token_of_cell: (B, N_init) int64, the token of each cell of the initial grid.
        token_cells: (B * N_init,) int64, each image's cells sorted by token.
        token_offsets: (B * N + 1,) int64, where in `token_cells` each token begins, and the end.
        pixel_of_cell: (N_init,) int64, the pixel of each cell, the same for all images.
        pixel_cells: (N_init,) int64, cells sorted by pixel.
        pixel_offsets: (H * W + 1,) int64.
        map_size: (H, W).
        gelu: whether the activation follows.

    Returns:
        (B, N, C) float32.
    """
    y = torch.empty_like(x)
    plan = (token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets)
    sizes = (*x.shape, *map_size, len(pixel_of_cell))
    call("tcformer_token_conv", x, weight, bias, skip, *plan, *sizes, int(gelu), y)
    return y


def token_conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor,
    token_of_cell: Tensor,
    token_cells: Tensor,
    token_offsets: Tensor,
    pixel_of_cell: Tensor,
    pixel_cells: Tensor,
    pixel_offsets: Tensor,
    map_size: tuple[int, int],
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in x, weight, bias and skip, of their shapes, for `grad_y` (B, N, C); see `token_conv`."""
    grads = tuple(torch.empty_like(t) for t in (x, weight, bias, skip))
    plan = (token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets)
    sizes = (*x.shape, *map_size, len(pixel_of_cell))
    call("tcformer_token_conv_backward", grad_y, x, weight, bias, skip, *plan, *sizes, int(gelu), *grads)
    return grads[0], grads[1], grads[2], grads[3]


def grid_conv(
    x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None, map_size: tuple[int, int], gelu: bool
) -> Tensor:
    """`token_conv` where the tokens are the map's pixels, row by row: conv(x) + bias + skip * x, then GELU if wanted.

    Args:
        x: (B, H * W, C) float32.
        weight, bias, skip: as for `token_conv`; `skip` None for 0.
        map_size: (H, W).
        gelu: whether the activation follows.

    Returns:
        (B, H * W, C) float32.
    """
    y = torch.empty_like(x)
    call("tcformer_grid_conv", x, weight, bias, skip, x.shape[0], *map_size, x.shape[2], int(gelu), y)
    return y


def grid_conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    map_size: tuple[int, int],
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients in x, weight, bias and skip (None without), of their shapes, for `grad_y`; see `grid_conv`."""
    grad_x, grad_weight, grad_bias = (torch.empty_like(t) for t in (x, weight, bias))
    grad_skip = None if skip is None else torch.empty_like(skip)
    sizes = (x.shape[0], *map_size, x.shape[2])
    grads = (grad_x, grad_weight, grad_bias, grad_skip)
    call("tcformer_grid_conv_backward", grad_y, x, weight, bias, skip, *sizes, int(gelu), *grads)
    return grads


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum gathered rows by segment: (S, C) float32, added up in ascending order of entries.

    Args:
        rows: (R, C) float32.
        index: (E,) int64, the row of each entry.
        offsets: (S + 1,) int64, where each segment's entries begin, and the end.
        weight: (E,) float32 factor of each entry, or None.
    """
    out = rows.new_empty(len(offsets) - 1, rows.shape[1])
    call("tcformer_segment_sum", rows, index, offsets, weight, *out.shape, out)
    return out


def segment_total(weight: Tensor, offsets: Tensor) -> Tensor:
    """Sum `weight` (E,) float32 by segment: (S,), for `offsets` (S + 1,) int64 as in `segment_sum`."""
    out = weight.new_empty(len(offsets) - 1)
    call("tcformer_segment_total", weight, offsets, len(out), out)
    return out


def sort_by_row(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Compressed sparse rows of a batch, without comparing: see `kernels.segments.sort_by_row`.

    Args:
        row: (B, n) int64 in [0, num_rows); other values are not noticed and write out of bounds.

    Returns:
        order: (B * n,) int64.
        offsets: (B * num_rows + 1,) int64.
    """
    batch, entries = row.shape
    order, offsets = row.new_empty(batch * entries), row.new_empty(batch * num_rows + 1)
    call("tcformer_sort_by_row", row, batch, entries, num_rows, order, offsets)
    return order, offsets

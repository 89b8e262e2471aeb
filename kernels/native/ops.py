"""The C++ functions as functions of tensors.

Arguments must be contiguous CPU tensors of the documented shapes and dtypes; nothing is checked here. Nothing has a
gradient. Results do not depend on the number of threads, and those of an image do not depend on the rest of its batch.
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
        k: number of neighbours that determine the density, at least 1; all real tokens if there are fewer.
        mask: (B, N) bool, true for real tokens; None if all are. Masked tokens do not change any bit of the result.

    Returns:
        centres: (B, M) int64, ascending. If an image has fewer real tokens than M, all of them and the first masked
            ones.
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
    out: Tensor | None = None,
) -> Tensor:
    """skip * x + map2token(conv(token2map(x)) + bias), followed by exact GELU if requested; see `kernels.token_conv`.

    Args:
        x: (B, N, C) float32.
        weight: (C, 1, 3, 3) float32, depth-wise.
        bias, skip: (C,) float32.
        token_of_cell: (B, N_init) int64, the token of each cell of the initial grid.
        token_cells: (B * N_init,) int64, each image's cells sorted by token.
        token_offsets: (B * N + 1,) int64, the position in `token_cells` where each token begins, and the end.
        pixel_of_cell: (N_init,) int64, the pixel of each cell, the same for all images.
        pixel_cells: (N_init,) int64, cells sorted by pixel.
        pixel_offsets: (H * W + 1,) int64, the position in `pixel_cells` where each pixel begins, and the end.
        map_size: (H, W).
        gelu: whether GELU is applied to the result.
        out: where the result is written, (B, N, C) float32: new memory if None; may be `x`.

    Returns:
        (B, N, C) float32.
    """
    y = torch.empty_like(x) if out is None else out
    cells = (token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets)
    sizes = (*x.shape, *map_size, len(pixel_of_cell))
    call("tcformer_token_conv", x, weight, bias, skip, *cells, *sizes, int(gelu), y)
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
    """Gradients with respect to x, weight, bias and skip, for `grad_y` (B, N, C); see `token_conv`."""
    grads = tuple(torch.empty_like(t) for t in (x, weight, bias, skip))
    cells = (token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets)
    sizes = (*x.shape, *map_size, len(pixel_of_cell))
    call("tcformer_token_conv_backward", grad_y, x, weight, bias, skip, *cells, *sizes, int(gelu), *grads)
    return grads[0], grads[1], grads[2], grads[3]


def grid_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    map_size: tuple[int, int],
    gelu: bool,
    out: Tensor | None = None,
) -> Tensor:
    """`token_conv` for tokens that are the pixels of the map, row by row: skip * x + conv(x) + bias.

    Args:
        x: (B, H * W, C) float32.
        weight, bias, skip: as for `token_conv`; `skip` may be None for 0.
        map_size: (H, W).
        gelu: whether GELU is applied to the result.
        out: where the result is written, as for `token_conv`.

    Returns:
        (B, H * W, C) float32.
    """
    y = torch.empty_like(x) if out is None else out
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
    """Gradients with respect to x, weight, bias and skip (None if there is no skip), for `grad_y`; see `grid_conv`."""
    grad_x, grad_weight, grad_bias = (torch.empty_like(t) for t in (x, weight, bias))
    grad_skip = None if skip is None else torch.empty_like(skip)
    sizes = (x.shape[0], *map_size, x.shape[2])
    grads = (grad_x, grad_weight, grad_bias, grad_skip)
    call("tcformer_grid_conv_backward", grad_y, x, weight, bias, skip, *sizes, int(gelu), *grads)
    return grads


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum gathered rows by segment: (S, C) float32, added in ascending order of entries.

    Args:
        rows: (R, C) float32.
        index: (E,) int64, the row of each entry.
        offsets: (S + 1,) int64, the position where each segment's entries begin, and the end.
        weight: (E,) float32 factor of each entry, or None for 1.
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
    """Sort the entries of each image by row, with a counting sort; see `kernels.segments.sort_by_row`.

    Args:
        row: (B, n) int64 in [0, num_rows). Other values are not detected and cause writes out of bounds.
        num_rows: number of rows of each image.

    Returns:
        order: (B * n,) int64.
        offsets: (B * num_rows + 1,) int64.
    """
    batch, entries = row.shape
    order, offsets = row.new_empty(batch * entries), row.new_empty(batch * num_rows + 1)
    call("tcformer_sort_by_row", row, batch, entries, num_rows, order, offsets)
    return order, offsets


def link_rows(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of rows that share cells, with two counting sorts; see `kernels.token_map.plan.Links`.

    Args:
        row: (B, n) int64 in [0, num_rows), the row of each of an image's cells. Other values are not detected and cause
            writes out of bounds.
        other: (B, n) int64 in [0, num_others), its other row. Likewise.
        num_rows, num_others: of each image.

    Returns:
        index: (B * n,) int64.
        offsets: (B * num_rows + 1,) int64.
        mean_weight, backward_weight: (B * n,) float64.
    """
    batch, cells = row.shape
    index, offsets = row.new_empty(batch * cells), row.new_empty(batch * num_rows + 1)
    mean_weight = torch.empty(batch * cells, dtype=torch.float64)
    backward_weight = torch.empty_like(mean_weight)
    outputs = (index, offsets, mean_weight, backward_weight)
    call("tcformer_link_rows", row, other, batch, cells, num_rows, num_others, *outputs)
    return outputs

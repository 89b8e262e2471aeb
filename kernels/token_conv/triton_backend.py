# Triton derives the types of a kernel's arguments (pointers and numbers) itself, so kernels have no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs
"""Token convolution on GPUs, forward and backward, each in one launch.

A program computes all steps for a few channels of an image: tokens to map, depth-wise 3x3 convolution, map to tokens,
then skip, bias and GELU. Channels are independent, so no program waits for another. Its maps, a few channels of one
image, are in scratch memory of its own, small enough to stay in the caches. A program processes its images one after
the other and reuses this memory. Between the steps, a barrier makes what one thread of the program wrote visible to the
others.

Sums over cells are added in the order of the cells. Each program sums the gradients of the parameters over its images,
and these sums are added over programs in ascending order, so there are no atomics. The number of programs is fixed, so
the order is the same on every GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.constants import EPSILON
from kernels.triton_launch import Launch, architecture, on_device_of


@dataclass(frozen=True)
class Sizes:
    """Block sizes of the kernels in this file for one architecture, and the number of programs that share the images.

    More programs hide more latency; fewer programs keep their scratch memory in the second-level cache. The maps of a
    program need 2 * 4 * pixels * channels bytes, 200 kB for 28x28 pixels and 32 channels.
    """

    forward: Launch
    backward: Launch
    programs: int


# With 32 rows, a thread needs 80 (forward) and 128 (backward) registers, so three and two programs share a
# multiprocessor. With 64 rows, backward would need more than 200, which leaves room for one program, and forward
# spills.
_SIZES = Sizes(
    forward=Launch(rows=32, channels=32, warps=8, registers=80),
    backward=Launch(rows=32, channels=32, warps=8, registers=128),
    programs=512,
)
SIZES = {"sm_80": _SIZES, "sm_90": _SIZES, "default": _SIZES}

_EPSILON = tl.constexpr(EPSILON)
_IN_FLIGHT = tl.constexpr(4)
_TAPS = tl.constexpr(16)  # 9 taps of the kernel, padded to a power of two


@triton.jit
def _sum_cells(
    source, stride, column, inside, cells, row_of_cell, begin, end, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Sums (ROWS, CHANNELS) of the rows of `source` to which cells[begin:end] belong, in the order of the cells."""
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, tl.max(end - begin, 0), _IN_FLIGHT):
        for i in tl.static_range(_IN_FLIGHT):
            entry = begin + first + i
            live = entry < end
            cell = tl.load(cells + entry, mask=live, other=0).to(tl.int32)
            row = tl.load(row_of_cell + cell, mask=live, other=0).to(tl.int32)
            place = source + row[:, None] * stride + column[None, :]
            total += tl.load(place, mask=live[:, None] & inside[None, :], other=0.0).to(tl.float32)
    return total


@triton.jit
def _extent(offsets, row, rows, first):
    """Positions where the cells of each row begin and end, counted from `first`, the image's first cell."""
    begin = tl.load(offsets + row, mask=row < rows, other=first) - first
    end = tl.load(offsets + row + 1, mask=row < rows, other=first) - first
    return begin.to(tl.int32), end.to(tl.int32)  # 32 bits suffice within an image and need half the registers


@triton.jit
def _tokens_to_map(
    x, out, column, inside, C, cells, offsets, token_of_cell, HW, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """out (HW, CHANNELS): the mean of each pixel's tokens."""
    for start in range(0, HW, ROWS):
        pixel = start + tl.arange(0, ROWS)
        begin, end = _extent(offsets, pixel, HW, 0)
        total = _sum_cells(x, C, column, inside, cells, token_of_cell, begin, end, ROWS, CHANNELS)
        total = total / ((end - begin).to(tl.float32) + _EPSILON)[:, None]
        lane = tl.arange(0, CHANNELS)
        tl.store(out + pixel[:, None] * CHANNELS + lane[None, :], total, mask=(pixel < HW)[:, None])


@triton.jit
def _neighbour(source, pixel, dy, dx, H, W, CHANNELS: tl.constexpr):
    """Rows of a map (H * W, CHANNELS) at `pixel`, shifted by (dy, dx); 0 outside the map."""
    y = pixel // W + dy
    x = pixel % W + dx
    inside = (pixel < H * W) & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    place = (y * W + x)[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return tl.load(source + place, mask=inside[:, None], other=0.0)


@triton.jit
def _convolve(source, out, weight, bias, column, inside, C, H, W, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """out (HW, CHANNELS): the depth-wise 3x3 convolution of a map, plus bias."""
    for start in range(0, H * W, ROWS):
        pixel = start + tl.arange(0, ROWS)
        total = tl.zeros((ROWS, CHANNELS), tl.float32)
        total += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                factor = tl.load(weight + column * 9 + dy * 3 + dx, mask=inside, other=0.0).to(tl.float32)
                total += factor[None, :] * _neighbour(source, pixel, dy - 1, dx - 1, H, W, CHANNELS)
        place = pixel[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
        tl.store(out + place, total, mask=(pixel < H * W)[:, None])


@triton.jit
def token_conv_kernel(
    x, weight, bias, skip, token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets,
    scratch, y, B, N, C, H, W, CELLS, GELU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y (B, N, C) = skip * x + map2token(conv(token2map(x)) + bias), followed by GELU if requested."""
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < C
    lane = tl.arange(0, CHANNELS)
    every = lane < CHANNELS
    before = scratch + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * (2 * H * W * CHANNELS)
    after = before + H * W * CHANNELS
    factor = tl.load(skip + column, mask=inside, other=0.0).to(tl.float32)
    for image in range(tl.program_id(1), B, tl.num_programs(1)):
        b = tl.zeros((), tl.int64) + image
        of_token = token_cells + b * CELLS
        _tokens_to_map(
            x + b * N * C, before, column, inside, C, pixel_cells, pixel_offsets, token_of_cell + b * CELLS, H * W,
            ROWS, CHANNELS,
        )  # fmt: skip
        tl.debug_barrier()
        _convolve(before, after, weight, bias, column, inside, C, H, W, ROWS, CHANNELS)
        tl.debug_barrier()
        for start in range(0, N, ROWS):
            token = start + tl.arange(0, ROWS)
            begin, end = _extent(token_offsets + b * N, token, N, b * CELLS)
            value = _sum_cells(after, CHANNELS, lane, every, of_token, pixel_of_cell, begin, end, ROWS, CHANNELS)
            value = value / ((end - begin).to(tl.float32) + _EPSILON)[:, None]
            place = (b * N + token)[:, None] * C + column[None, :]
            valid = (token < N)[:, None] & inside[None, :]
            value += factor[None, :] * tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
            if GELU:
                value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
            tl.store(y + place, value.to(y.dtype.element_ty), mask=valid)
        tl.debug_barrier()  # the next image overwrites the maps


@triton.jit
def token_conv_backward_kernel(
    grad_y, x, weight, bias, skip, token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells,
    pixel_offsets, scratch, grad_x, grad_weight, grad_bias, grad_skip, B, N, C, H, W, CELLS,
    GELU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_x (B, N, C), and this program's part of the parameters' gradients (programs, ...).

    The map before the convolution, and the input of GELU, are computed again rather than kept.
    """
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < C
    lane = tl.arange(0, CHANNELS)
    every = lane < CHANNELS
    HW = H * W
    before = scratch + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * (
        (2 * HW + N) * CHANNELS
    )
    after = before + HW * CHANNELS
    grad_token = after + HW * CHANNELS
    factor = tl.load(skip + column, mask=inside, other=0.0).to(tl.float32)
    tap = tl.arange(0, _TAPS)
    sum_weight = tl.zeros((_TAPS, CHANNELS), tl.float32)
    sum_bias = tl.zeros((CHANNELS,), tl.float32)
    sum_skip = tl.zeros((CHANNELS,), tl.float32)
    for image in range(tl.program_id(1), B, tl.num_programs(1)):
        b = tl.zeros((), tl.int64) + image
        of_token = token_cells + b * CELLS
        of_cell = token_of_cell + b * CELLS
        _tokens_to_map(
            x + b * N * C, before, column, inside, C, pixel_cells, pixel_offsets, of_cell, HW, ROWS, CHANNELS
        )
        tl.debug_barrier()
        if GELU:
            _convolve(before, after, weight, bias, column, inside, C, H, W, ROWS, CHANNELS)
            tl.debug_barrier()

        # Gradient before the activation; what is stored is the gradient of each token divided by its number of cells.
        for start in range(0, N, ROWS):
            token = start + tl.arange(0, ROWS)
            begin, end = _extent(token_offsets + b * N, token, N, b * CELLS)
            count = (end - begin).to(tl.float32) + _EPSILON
            place = (b * N + token)[:, None] * C + column[None, :]
            valid = (token < N)[:, None] & inside[None, :]
            grad = tl.load(grad_y + place, mask=valid, other=0.0).to(tl.float32)
            feature = tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
            if GELU:
                value = _sum_cells(after, CHANNELS, lane, every, of_token, pixel_of_cell, begin, end, ROWS, CHANNELS)
                value = value / count[:, None] + factor[None, :] * feature
                normal = 0.5 * (1.0 + tl.erf(value * 0.7071067811865476))
                grad = grad * (normal + value * 0.3989422804014327 * tl.exp(-0.5 * value * value))
            sum_skip += tl.sum(grad * feature, 0)
            place = token[:, None] * CHANNELS + lane[None, :]
            tl.store(grad_token + place, grad / count[:, None], mask=(token < N)[:, None])
        tl.debug_barrier()

        # Gradient of the map after the convolution.
        for start in range(0, HW, ROWS):
            pixel = start + tl.arange(0, ROWS)
            begin, end = _extent(pixel_offsets, pixel, HW, 0)
            grad = _sum_cells(grad_token, CHANNELS, lane, every, pixel_cells, of_cell, begin, end, ROWS, CHANNELS)
            sum_bias += tl.sum(grad, 0)
            tl.store(after + pixel[:, None] * CHANNELS + lane[None, :], grad, mask=(pixel < HW)[:, None])
        tl.debug_barrier()

        # Gradient of the convolution's weight.
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                total = tl.zeros((ROWS, CHANNELS), tl.float32)
                for start in range(0, HW, ROWS):
                    pixel = start + tl.arange(0, ROWS)
                    grad = _neighbour(after, pixel, 0, 0, H, W, CHANNELS)
                    total += grad * _neighbour(before, pixel, dy - 1, dx - 1, H, W, CHANNELS)
                sum_weight += tl.where(tap[:, None] == dy * 3 + dx, tl.sum(total, 0)[None, :], 0.0)
        tl.debug_barrier()

        # Gradient of the map before the convolution, divided by each pixel's number of cells. It overwrites that map,
        # which is no longer needed.
        for start in range(0, HW, ROWS):
            pixel = start + tl.arange(0, ROWS)
            total = tl.zeros((ROWS, CHANNELS), tl.float32)
            for dy in tl.static_range(3):
                for dx in tl.static_range(3):
                    along = tl.load(weight + column * 9 + dy * 3 + dx, mask=inside, other=0.0).to(tl.float32)
                    total += along[None, :] * _neighbour(after, pixel, 1 - dy, 1 - dx, H, W, CHANNELS)
            begin, end = _extent(pixel_offsets, pixel, HW, 0)
            total = total / ((end - begin).to(tl.float32) + _EPSILON)[:, None]
            tl.store(before + pixel[:, None] * CHANNELS + lane[None, :], total, mask=(pixel < HW)[:, None])
        tl.debug_barrier()

        # Gradient of the tokens.
        for start in range(0, N, ROWS):
            token = start + tl.arange(0, ROWS)
            begin, end = _extent(token_offsets + b * N, token, N, b * CELLS)
            count = (end - begin).to(tl.float32) + _EPSILON
            place = token[:, None] * CHANNELS + lane[None, :]
            grad = tl.load(grad_token + place, mask=(token < N)[:, None], other=0.0) * count[:, None] * factor[None, :]
            grad += _sum_cells(before, CHANNELS, lane, every, of_token, pixel_of_cell, begin, end, ROWS, CHANNELS)
            place = (b * N + token)[:, None] * C + column[None, :]
            tl.store(grad_x + place, grad.to(grad_x.dtype.element_ty), mask=(token < N)[:, None] & inside[None, :])
        tl.debug_barrier()
    part = tl.program_id(1) * C + column
    tl.store(grad_bias + part, sum_bias, mask=inside)
    tl.store(grad_skip + part, sum_skip, mask=inside)
    tl.store(grad_weight + part[None, :] * 9 + tap[:, None], sum_weight, mask=inside[None, :] & (tap < 9)[:, None])


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
    """skip * x + map2token(conv(token2map(x)) + bias), followed by exact GELU if requested; see `kernels.token_conv`.

    Args:
        x: (B, N, C) float16, bfloat16 or float32; all tensors are contiguous.
        weight: (C, 1, 3, 3), depth-wise.
        bias, skip: (C,).
        token_of_cell: (B, N_init) int64, the token of each cell of the initial grid.
        token_cells: (B * N_init,) int64, each image's cells sorted by token.
        token_offsets: (B * N + 1,) int64, the position in `token_cells` where each token begins, and the end.
        pixel_of_cell: (N_init,) int64, the pixel of each cell, the same for all images.
        pixel_cells: (N_init,) int64, cells sorted by pixel.
        pixel_offsets: (H * W + 1,) int64, the position in `pixel_cells` where each pixel begins, and the end.
        map_size: (H, W).
        gelu: whether GELU is applied to the result.

    Returns:
        (B, N, C) in the dtype of `x`, computed in float32.
    """
    size = SIZES[architecture(x.device)].forward
    y = torch.empty_like(x)
    grid = _grid(x, size)
    scratch = _scratch(x, grid, 2 * map_size[0] * map_size[1] * size.channels)
    with on_device_of(x):
        token_conv_kernel[grid](
            x, weight, bias, skip, token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells,
            pixel_offsets, scratch, y, *x.shape, *map_size, len(pixel_of_cell), gelu, size.rows, size.channels,
            **size.options,
        )  # fmt: skip
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
    size = SIZES[architecture(x.device)].backward
    grid = _grid(x, size)
    channels = x.shape[2]
    grad_x = torch.empty_like(x)
    grad_weight = x.new_empty(grid[1], channels, 1, 3, 3, dtype=torch.float32)
    grad_bias = x.new_empty(grid[1], channels, dtype=torch.float32)
    grad_skip = torch.empty_like(grad_bias)
    scratch = _scratch(x, grid, (2 * map_size[0] * map_size[1] + x.shape[1]) * size.channels)
    with on_device_of(x):
        token_conv_backward_kernel[grid](
            grad_y, x, weight, bias, skip, token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells,
            pixel_offsets, scratch, grad_x, grad_weight, grad_bias, grad_skip, *x.shape, *map_size,
            len(pixel_of_cell), gelu, size.rows, size.channels, **size.options,
        )  # fmt: skip
    parts = ((grad_weight, weight), (grad_bias, bias), (grad_skip, skip))
    sums = [part.sum(0).to(parameter.dtype) for part, parameter in parts]
    return grad_x, sums[0], sums[1], sums[2]


def _grid(x: Tensor, size: Launch) -> tuple[int, int]:
    """Number of programs along channels and along images. Few images have one program each, many share programs."""
    blocks = triton.cdiv(x.shape[2], size.channels)
    return blocks, min(x.shape[0], max(1, SIZES[architecture(x.device)].programs // blocks))


def _scratch(x: Tensor, grid: tuple[int, int], floats: int) -> Tensor:
    return x.new_empty(grid[0] * grid[1] * floats, dtype=torch.float32)

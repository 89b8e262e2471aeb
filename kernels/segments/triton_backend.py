# Triton derives the types of a kernel's arguments (pointers and numbers) itself, so kernels have no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs
"""Sums of gathered rows by segment, on GPUs, for merging, token maps, up-sampling and their gradients.

One program adds the entries of one segment, one after the other, so there are no atomics and the order of addition is
fixed. A long segment (a token that covers the whole background) delays only its own program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_launch import Launch, on_device_of

# The same for all architectures, because none of these is near a limit. A warp reads 128 channels at once, 16 bytes per
# thread in float32, with 38 to 64 registers, so a multiprocessor runs the maximum of 32 programs, each with four rows
# in flight.
SUM = Launch(rows=1, channels=128, warps=1, registers=64)
TOTAL = Launch(rows=32, channels=16, warps=4, registers=128)  # `channels` is the number of entries added at a time
DOT = Launch(rows=4, channels=128, warps=4, registers=128)
_IN_FLIGHT = tl.constexpr(4)


@triton.jit
def segment_sum_kernel(
    rows, index, offsets, weight, out, C,
    HAS_WEIGHT: tl.constexpr, DOUBLE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out[s] = sum over e in [offsets[s], offsets[s + 1]) of weight[e] * rows[index[e]]."""
    dtype: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    segment = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin = tl.load(offsets + segment)
    end = tl.load(offsets + segment + 1)
    total = tl.zeros((CHANNELS,), dtype)
    for first in range(begin, end, _IN_FLIGHT):
        for i in tl.static_range(_IN_FLIGHT):
            live = first + i < end
            row = tl.load(index + first + i, mask=live, other=0)
            value = tl.load(rows + row * C + channel, mask=live & (channel < C), other=0.0).to(dtype)
            if HAS_WEIGHT:
                value = value * tl.load(weight + first + i, mask=live, other=0.0).to(dtype)
            total += value
    tl.store(out + segment * C + channel, total.to(out.dtype.element_ty), mask=channel < C)


@triton.jit
def segment_total_kernel(weight, offsets, out, S, DOUBLE: tl.constexpr, ROWS: tl.constexpr, ENTRIES: tl.constexpr):
    """out[s] = sum over e in [offsets[s], offsets[s + 1]) of weight[e]."""
    dtype: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    segment = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    begin = tl.load(offsets + segment, mask=segment < S, other=0)
    end = tl.load(offsets + segment + 1, mask=segment < S, other=0)
    total = tl.zeros((ROWS,), dtype)
    for first in range(0, tl.max(end - begin, 0), ENTRIES):
        entry = begin[:, None] + first + tl.arange(0, ENTRIES)[None, :]
        total += tl.sum(tl.load(weight + entry, mask=entry < end[:, None], other=0.0).to(dtype), 1)
    tl.store(out + segment, total.to(out.dtype.element_ty), mask=segment < S)


@triton.jit
def row_dots_kernel(
    left, left_index, right, right_index, out, E, C,
    DOUBLE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out[e] = left[left_index[e]] . right[right_index[e]]."""
    dtype: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    entry = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    left_row = tl.load(left_index + entry, mask=entry < E, other=0)
    right_row = tl.load(right_index + entry, mask=entry < E, other=0)
    total = tl.zeros((ROWS,), dtype)
    for start in range(0, C, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        inside = (entry < E)[:, None] & (channel < C)[None, :]
        a = tl.load(left + left_row[:, None] * C + channel[None, :], mask=inside, other=0.0).to(dtype)
        b = tl.load(right + right_row[:, None] * C + channel[None, :], mask=inside, other=0.0).to(dtype)
        total += tl.sum(a * b, 1)
    tl.store(out + entry, total.to(out.dtype.element_ty), mask=entry < E)


def segment_sum(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum gathered rows by segment.

    Args:
        rows: (R, C) float16, bfloat16, float32 or float64, contiguous.
        index: (E,) int64, the row of each entry; entries are sorted by segment.
        offsets: (S + 1,) int64, the position where each segment's entries begin, and the end.
        weight: (E,) factor of each entry, any floating dtype; None for 1.

    Returns:
        (S, C) in the dtype of `rows`, added in float32 (float64 for float64) in ascending order of entries; 0 for a
        segment without entries.
    """
    segments, channels = len(offsets) - 1, rows.shape[1]
    out = rows.new_empty(segments, channels)
    block = min(SUM.channels, triton.next_power_of_2(channels))
    if segments:
        with on_device_of(rows):
            segment_sum_kernel[segments, triton.cdiv(channels, block)](
                rows, index, offsets, rows if weight is None else weight, out, channels,
                weight is not None, rows.dtype == torch.float64, block, **SUM.options,
            )  # fmt: skip
    return out


def segment_total(weight: Tensor, offsets: Tensor) -> Tensor:
    """Sum `weight` (E,) by segment: (S,), in the dtype of `weight`; accumulated as in `segment_sum`."""
    segments = len(offsets) - 1
    out = weight.new_empty(segments)
    if segments:
        with on_device_of(weight):
            segment_total_kernel[(triton.cdiv(segments, TOTAL.rows),)](
                weight, offsets, out, segments, weight.dtype == torch.float64, TOTAL.rows, TOTAL.channels,
                **TOTAL.options,
            )  # fmt: skip
    return out


def row_dots(left: Tensor, left_index: Tensor, right: Tensor, right_index: Tensor) -> Tensor:
    """Inner products of gathered rows: the gradient of `segment_sum` with respect to its weight.

    Args:
        left, right: (R, C) and (S, C) of one floating dtype, contiguous.
        left_index, right_index: (E,) int64.

    Returns:
        (E,) float32 (float64 for float64): left[left_index[e]] . right[right_index[e]].
    """
    double = left.dtype == torch.float64
    out = left.new_empty(len(left_index), dtype=left.dtype if double else torch.float32)
    if len(out):
        with on_device_of(left):
            row_dots_kernel[(triton.cdiv(len(out), DOT.rows),)](
                left, left_index, right, right_index, out, len(out), left.shape[1], double, DOT.rows, DOT.channels,
                **DOT.options,
            )  # fmt: skip
    return out

# Triton derives the types of a kernel's arguments (pointers and numbers) itself, so kernels have no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs
"""DPC-KNN on GPUs. Memory grows linearly with the number of tokens: no (N, N) array is stored.

A matrix product selects candidates, and float32 distances decide between them. The product gives squared distances
|a|^2 + |b|^2 - 2ab of centred features, by which a few more candidates than needed are selected. The distances to the
candidates are then computed again as sums of (a - b)^2, as in the reference. By default the product has TF32 operands.
They are rounded once, before the norms are computed, so the product compares exact distances between slightly moved
points: near tokens, whose distance is small compared with their norms, keep their order. The strict mode multiplies in
IEEE float32.

The list of a token's nearest neighbours usually gives its nearest denser token and its nearest centre as well: the
nearest denser neighbour in the list is the nearest denser token of all, and the nearest centre in the list, if nearer
than the end of the list, is the nearest centre of all. Only the unresolved tokens are compared again. They are gathered
at the front of their chunk and counted on the device. Programs beyond the count end at once, so the host never waits.

No result depends on the order in which programs run, there are no atomics, and an image's values do not depend on its
batch. Tokens that are masked, or whose features are not finite, get an infinite norm: they are at an infinite distance
from everything and need no further treatment. Squared distances that rounding alone could produce count as 0 (see
`kernels.dpc_knn.rounding`), so that ties between equal tokens go to the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.dpc_knn.rounding import rounding_limit
from kernels.triton_launch import Launch, architecture, on_device_of, round_up

# What the search kernel compares its queries with.
_EVERYTHING = tl.constexpr(0)
_DENSER = tl.constexpr(1)
_CENTRES = tl.constexpr(2)

_NO_INDEX = tl.constexpr(2147483647)
# Features of at least this size count as infinite. The square of a sum of 2^20 smaller ones still fits float32.
_LARGEST = tl.constexpr(2.0**50)
_LOWEST_KEY = tl.constexpr(-(2**63))

# Candidates for the nearest denser token or the nearest centre that the product selects.
_KEEP_NEAREST = 4
# Listed neighbours beyond those that are trusted: with TF32 operands the order may be wrong at the end of a list.
_SPARE = 3


@dataclass(frozen=True)
class Sizes:
    """Block sizes of all kernels in this file, for one architecture."""

    shift: Launch
    centre: Launch
    search: Launch
    strict_search: Launch
    rescore: Launch
    resolve: Launch
    choose: Launch


# search uses 124 to 136 registers on sm_90 and 166 to 168 on sm_80 (Triton 3.8). Blocks of 128 x 128 with 8 warps would
# read less, but use 190 and 254 registers, all rows of a block would wait for the one with most insertions, and one
# image of 3136 tokens would occupy 25 programs instead of 49. strict_search keeps its products in 248 to 254 registers,
# and spills with 32 channels. choose holds the keys of 4096 tokens (an image of 256 x 256 pixels) at once.
_SIZES = Sizes(
    shift=Launch(rows=64, channels=32, warps=4, registers=128),
    centre=Launch(rows=32, channels=64, warps=4, registers=128),
    search=Launch(rows=64, columns=64, channels=32, warps=4, registers=168),
    strict_search=Launch(rows=64, columns=64, channels=16, warps=4, registers=255),
    rescore=Launch(rows=8, channels=32, warps=4, registers=128),
    resolve=Launch(rows=1024, channels=1, warps=4, registers=128),
    choose=Launch(rows=4096, channels=1, warps=8, registers=255),
)
SIZES = {"sm_80": _SIZES, "sm_90": _SIZES, "default": _SIZES}


@triton.jit
def shift_kernel(x, mask, shift, N, C, HAS_MASK: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """shift (B, C): the mean of the real tokens, rounded so coarsely that subtracting it is exact.

    It is rounded to a multiple of a power of two of at most 1/32 of the channel's range. Integer features therefore
    stay on a lattice that needs few bits, and equal distances between them stay equal, also in TF32. A constant channel
    becomes 0.
    """
    b = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    row = tl.arange(0, ROWS)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    count = tl.zeros((ROWS, CHANNELS), tl.float32)
    least = tl.full((ROWS, CHANNELS), float("inf"), tl.float32)
    most = tl.full((ROWS, CHANNELS), -float("inf"), tl.float32)
    for start in range(0, N, ROWS):
        token = start + row
        real = token < N
        if HAS_MASK:
            real = real & (tl.load(mask + b * N + token, mask=real, other=0) != 0)
        inside = real[:, None] & (channel < C)[None, :]
        value = tl.load(x + (b * N + token)[:, None] * C + channel[None, :], mask=inside, other=0.0)
        inside = inside & (tl.abs(value) < _LARGEST)
        total += tl.where(inside, value, 0.0)
        count += tl.where(inside, 1.0, 0.0)
        least = tl.where(inside & (value < least), value, least)
        most = tl.where(inside & (value > most), value, most)
    low = tl.min(least, 0)
    high = tl.max(most, 0)
    mean = tl.sum(total, 0) / tl.maximum(tl.sum(count, 0), 1.0)
    exponent = tl.where(high > low, high - low, 1.0).to(tl.int32, bitcast=True) & 0x7F800000
    unit = exponent.to(tl.float32, bitcast=True) * 0.03125
    value = tl.floor(mean / unit + 0.5) * unit
    value = tl.where(value >= low, value, low)  # also if the unit underflowed and the quotient is NaN
    value = tl.where(value <= high, value, high)
    tl.store(shift + b * C + channel, tl.where(low <= high, value, 0.0), mask=channel < C)


@triton.jit
def centre_kernel(
    x, mask, first, shift, z, norm, from_first, N, C, NP, CP,
    HAS_MASK: tl.constexpr, TF32: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """z (B, NP, CP) = x - shift, padded with zeros; norm (B, NP): squared norm of each row, infinite if no real token.

    from_first (B, NP): squared distance to token `first`, 0 if no real token.
    """
    b = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = token < N
    if HAS_MASK:
        real = real & (tl.load(mask + b * N + token, mask=real, other=0) != 0)
    origin = x + (b * N + tl.load(first + b)) * C
    total = tl.zeros((ROWS,), tl.float32)
    moved = tl.zeros((ROWS,), tl.float32)
    broken = tl.zeros((ROWS,), tl.int32)
    for start in range(0, CP, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        inside = real[:, None] & (channel < C)[None, :]
        value = tl.load(x + (b * N + token)[:, None] * C + channel[None, :], mask=inside, other=0.0)
        centre = tl.load(shift + b * C + channel, mask=channel < C, other=0.0)
        difference = value - tl.load(origin + channel, mask=channel < C, other=0.0)[None, :]
        moved += tl.sum(tl.where(inside, difference * difference, 0.0), 1)
        value = tl.where(inside, value - centre[None, :], 0.0)
        finite = tl.abs(value) < _LARGEST
        broken += tl.sum(tl.where(finite, 0, 1), 1)
        value = tl.where(finite, value, 0.0)
        if TF32:  # round to nearest; the tensor cores would truncate the lower 13 bits, which shrinks every product
            value = ((value.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
        total += tl.sum(value * value, 1)
        place = (b * NP + token)[:, None] * CP + channel[None, :]
        tl.store(z + place, value, mask=(token < NP)[:, None] & (channel < CP)[None, :])
    sound = real & (broken == 0)
    tl.store(norm + b * NP + token, tl.where(sound, total, float("inf")), mask=token < NP)
    tl.store(from_first + b * NP + token, tl.where(sound & (moved < float("inf")), moved, 0.0), mask=token < NP)


@triton.jit
def _insert(best, place, distance, column):
    """Insert the entries of `distance` (ROWS, COLUMNS) that are small enough into the lists (ROWS, KEEP).

    A list holds the smallest (distance, column) pairs so far, unsorted. The number of iterations is the number of
    insertions in the row that has most of them, which after the first few tiles is usually 0.
    """
    worst = tl.max(best, 1)
    last = tl.max(tl.where(best == worst[:, None], place, -1), 1)
    least = tl.min(distance, 1)
    more = tl.max(((least <= worst) & (least < float("inf"))).to(tl.int32), 0)
    while more > 0:
        at = tl.min(tl.where(distance == least[:, None], column[None, :], _NO_INDEX), 1)
        hit = ((least < worst) | ((least == worst) & (at < last))) & (least < float("inf"))
        replaced = (place == last[:, None]) & hit[:, None]
        best = tl.where(replaced, least[:, None], best)
        place = tl.where(replaced, at[:, None], place)
        distance = tl.where(column[None, :] == at[:, None], float("inf"), distance)
        worst = tl.max(best, 1)
        last = tl.max(tl.where(best == worst[:, None], place, -1), 1)
        least = tl.min(distance, 1)
        more = tl.max((hit & (least <= worst)).to(tl.int32), 0)
    return best, place


@triton.jit
def _search_tile(
    z, norm, sparsity, centres, row, live, first, limit, zero_below, CP,
    AMONG: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The KEEP nearest columns of each row: tokens, or positions in the list of centres; `limit` or more for none."""
    row_norm = tl.load(norm + row, mask=live, other=float("inf"))
    slot = tl.arange(0, KEEP)
    best = tl.full((ROWS, KEEP), float("inf"), tl.float32)
    place = _NO_INDEX - slot[None, :] + tl.zeros((ROWS, KEEP), tl.int32)  # all different: one is replaced at a time
    if AMONG == _EVERYTHING:  # the token itself is in the list and is never replaced
        best = tl.where(slot[None, :] == 0, -1.0, best)
        place = tl.where(slot[None, :] == 0, row[:, None], place)
    if AMONG == _DENSER:
        row_sparsity = tl.load(sparsity + row, mask=live, other=0.0)
    tiles = tl.cdiv(limit, COLUMNS)
    for step in range(0, tiles):
        tile = first + step  # near tokens first: the lists are good at once, and later tiles seldom insert anything
        tile = tl.where(tile >= tiles, tile - tiles, tile)
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        token = column
        if AMONG == _CENTRES:
            token = tl.load(centres + column, mask=column < limit, other=0).to(tl.int32)
            token_norm = tl.load(norm + token, mask=column < limit, other=float("inf"))
        else:
            token_norm = tl.load(norm + token)
        product = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, CP, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            left = tl.load(z + row[:, None] * CP + channel[None, :])
            right = tl.load(z + token[:, None] * CP + channel[None, :])
            product = tl.dot(left, tl.trans(right), product, input_precision=PRECISION)
        distance = row_norm[:, None] + token_norm[None, :] - 2.0 * product
        distance = tl.where(distance >= zero_below, distance, 0.0)
        if AMONG == _EVERYTHING:
            distance = tl.where(column[None, :] == row[:, None], float("inf"), distance)
        if AMONG == _DENSER:
            token_sparsity = tl.load(sparsity + token)
            denser = token_sparsity[None, :] < row_sparsity[:, None]
            denser = denser | ((token_sparsity[None, :] == row_sparsity[:, None]) & (token[None, :] < row[:, None]))
            distance = tl.where(denser, distance, float("inf"))
        best, place = _insert(best, place, distance, column)
    return place


@triton.jit
def search_kernel(
    z, norm, sparsity, centres, query, count, found, rounding_limits, NP, CP, M,
    AMONG: tl.constexpr, KEEP: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """found (B, NP, KEEP): candidates for the nearest tokens, denser tokens or centres; -1 for none."""
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    zero_below = tl.load(rounding_limits + b)
    slot = tile * ROWS + tl.arange(0, ROWS)
    if AMONG == _EVERYTHING:
        place = _search_tile(
            z + b * NP * CP, norm + b * NP, sparsity, centres, slot, slot < NP, tile * ROWS // COLUMNS, NP, zero_below,
            CP, AMONG, KEEP, ROWS, COLUMNS, CHANNELS, PRECISION,
        )  # fmt: skip
        place = tl.where(place < NP, place, -1)
        tl.store(found + (b * NP + slot)[:, None] * KEEP + tl.arange(0, KEEP)[None, :], place)
    else:
        chunk = tile * ROWS // CHUNK
        waiting = tl.load(count + b * tl.cdiv(NP, CHUNK) + chunk)
        if tile * ROWS - chunk * CHUNK < waiting:
            live = slot - chunk * CHUNK < waiting
            row = tl.load(query + b * NP + slot, mask=live, other=0)
            limit = M if AMONG == _CENTRES else NP
            place = _search_tile(
                z + b * NP * CP, norm + b * NP, sparsity + b * NP, centres + b * M, row, live, 0, limit, zero_below,
                CP, AMONG, KEEP, ROWS, COLUMNS, CHANNELS, PRECISION,
            )  # fmt: skip
            place = tl.where(place < limit, place, -1)
            tl.store(found + (b * NP + slot)[:, None] * KEEP + tl.arange(0, KEEP)[None, :], place, mask=live[:, None])


@triton.jit
def _measure(x, row, token, known, zero_below, C, ROWS: tl.constexpr, KEEP: tl.constexpr, CHANNELS: tl.constexpr):
    """Squared distances (ROWS, KEEP) from `row` to `token`, as sums of squared differences; infinite if not `known`."""
    distance = tl.zeros((ROWS, KEEP), tl.float32)
    for start in range(0, C, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        inside = known[:, :, None] & (channel < C)[None, None, :]
        left = tl.load(x + row[:, None] * C + channel[None, :], mask=(channel < C)[None, :], other=0.0)
        right = tl.load(x + token[:, :, None] * C + channel[None, None, :], mask=inside, other=0.0)
        difference = tl.where(inside, left[:, None, :] - right, 0.0)
        distance += tl.sum(difference * difference, 2)
    distance = tl.where(distance < zero_below, 0.0, distance)
    return tl.where(known, distance, float("inf"))


@triton.jit
def rescore_neighbours_kernel(
    x, norm, found, rounding_limits, near, neighbour, sparsity, N, C, NP,
    K: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the candidates' distances, sort them by (distance, index), and average the first K distances."""
    b = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = tl.load(norm + b * NP + row) < float("inf")
    at = tl.load(found + (b * NP + row)[:, None] * KEEP + tl.arange(0, KEEP)[None, :])
    known = (at >= 0) & real[:, None]
    row = tl.where(real, row, 0)
    zero_below = tl.load(rounding_limits + b)
    distance = _measure(x + b * N * C, row, tl.where(known, at, 0), known, zero_below, C, ROWS, KEEP, CHANNELS)
    at = tl.where(known, at, _NO_INDEX)
    total = tl.zeros((ROWS,), tl.float32)
    count = tl.zeros((ROWS,), tl.float32)
    out = b * NP + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for place in tl.static_range(KEEP):
        least = tl.min(distance, 1)
        index = tl.min(tl.where(distance == least[:, None], at, _NO_INDEX), 1)
        some = least < float("inf")
        tl.store(near + out * KEEP + place, least)
        tl.store(neighbour + out * KEEP + place, tl.where(some, index, -1))
        if place < K:
            total += tl.where(some, least, 0.0)
            count += tl.where(some, 1.0, 0.0)
        distance = tl.where(at == index[:, None], float("inf"), distance)
        at = tl.where(at == index[:, None], _NO_INDEX, at)
    mean = tl.div_rn(total, tl.maximum(count, 1.0) * C)
    tl.store(sparsity + out, tl.where(real, mean, float("inf")))


@triton.jit
def rescore_search_kernel(
    x, centres, query, count, found, rounding_limits, delta, assign, N, C, NP, M,
    AMONG: tl.constexpr, KEEP: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the distances to a search's candidates: delta (B, NP) or assign (B, N) of the queried tokens."""
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    chunk = tile * ROWS // CHUNK
    waiting = tl.load(count + b * tl.cdiv(NP, CHUNK) + chunk)
    if tile * ROWS - chunk * CHUNK < waiting:
        slot = tile * ROWS + tl.arange(0, ROWS)
        live = slot - chunk * CHUNK < waiting
        row = tl.load(query + b * NP + slot, mask=live, other=0)
        at = (b * NP + slot)[:, None] * KEEP + tl.arange(0, KEEP)[None, :]
        column = tl.load(found + at, mask=live[:, None], other=-1)
        known = column >= 0
        token = tl.where(known, column, 0)
        if AMONG == _CENTRES:
            token = tl.load(centres + b * M + token).to(tl.int32)
        zero_below = tl.load(rounding_limits + b)
        distance = _measure(x + b * N * C, row, token, known, zero_below, C, ROWS, KEEP, CHANNELS)
        least = tl.min(distance, 1)
        if AMONG == _CENTRES:
            first = tl.min(tl.where((distance == least[:, None]) & known, column, _NO_INDEX), 1)
            tl.store(assign + b * N + row, tl.where(first < M, first, 0).to(tl.int64), mask=live)
        else:
            tl.store(delta + b * NP + row, least, mask=live)


@triton.jit
def _gather_unresolved(unresolved, token, query, count, b, NP, CHUNK: tl.constexpr):
    """Write the `unresolved` tokens to the front of this program's chunk of `query`, and count them."""
    chunk = tl.program_id(0)
    place = tl.cumsum(unresolved.to(tl.int32), 0) - 1
    tl.store(query + b * NP + chunk * CHUNK + place, token, mask=unresolved)
    tl.store(count + b * tl.num_programs(0) + chunk, tl.sum(unresolved.to(tl.int32), 0))


@triton.jit
def delta_kernel(
    norm, near, neighbour, sparsity, delta, query, count, NP,
    TRUSTED: tl.constexpr, KEEP: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """delta (B, NP): squared distance to the nearest denser token, if it is among the first TRUSTED neighbours."""
    b = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    inside = token < NP
    unresolved = tl.load(norm + b * NP + token, mask=inside, other=float("inf")) < float("inf")
    own = tl.load(sparsity + b * NP + token, mask=inside, other=0.0)
    nearest = tl.full((CHUNK,), float("inf"), tl.float32)
    for place in tl.static_range(TRUSTED):
        at = (b * NP + token) * KEEP + place
        index = tl.load(neighbour + at, mask=unresolved, other=-1)
        other = tl.load(sparsity + b * NP + index, mask=index >= 0, other=float("inf"))
        denser = unresolved & (index >= 0) & ((other < own) | ((other == own) & (index < token)))
        nearest = tl.where(denser, tl.load(near + at, mask=denser, other=0.0), nearest)
        unresolved = unresolved & (denser == 0)
    tl.store(delta + b * NP + token, nearest, mask=inside)
    _gather_unresolved(unresolved, token, query, count, b, NP, CHUNK)


@triton.jit
def choose_kernel(norm, sparsity, delta, key, centres, slot_of, N, NP, M, ROWS: tl.constexpr):
    """The M tokens with the highest scores, ascending, by bisection of the scores' bits. One program per image.

    score = ln(delta) / 2 - sparsity in float64, as in the reference. The densest token has no denser one, so its delta
    and its score are infinite, and it comes first. Masked tokens come last.
    """
    b = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    for start in range(0, N, ROWS):
        token = start + row
        real = tl.load(norm + b * NP + token, mask=token < N, other=float("inf")) < float("inf")
        square = tl.load(delta + b * NP + token, mask=real, other=1.0).to(tl.float64)
        sparse = tl.load(sparsity + b * NP + token, mask=real, other=0.0).to(tl.float64)
        score = tl.where(square > 0, tl.log(tl.where(square > 0, square, 1.0)), -float("inf")) * 0.5 - sparse
        bits = score.to(tl.int64, bitcast=True)
        ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)  # integers in the order of the scores
        tl.store(key + b * NP + token, tl.where(real, ordered, _LOWEST_KEY), mask=token < N)
    tl.debug_barrier()

    threshold = tl.full((), _LOWEST_KEY, tl.int64)  # at the end: the M-th largest key
    for step in range(0, 64):
        bit = tl.full((), 1, tl.int64) << (63 - step)
        trial = threshold ^ bit  # the first step flips the sign, the others set a bit
        above = tl.zeros((ROWS,), tl.int32)
        for start in range(0, N, ROWS):
            token = start + row
            value = tl.load(key + b * NP + token, mask=token < N, other=_LOWEST_KEY)
            above += ((value >= trial) & (token < N)).to(tl.int32)
        threshold = tl.where(tl.sum(above, 0) >= M, trial, threshold)

    above = tl.zeros((ROWS,), tl.int32)
    for start in range(0, N, ROWS):
        token = start + row
        value = tl.load(key + b * NP + token, mask=token < N, other=_LOWEST_KEY)
        above += (value > threshold).to(tl.int32)
    equals = M - tl.sum(above, 0)  # number of tokens equal to the threshold that are taken, the first ones
    taken = tl.zeros((), tl.int32)
    seen = tl.zeros((), tl.int32)
    for start in range(0, N, ROWS):
        token = start + row
        value = tl.load(key + b * NP + token, mask=token < N, other=_LOWEST_KEY)
        equal = ((value == threshold) & (token < N)).to(tl.int32)
        chosen = (value > threshold) | ((equal > 0) & (seen + tl.cumsum(equal, 0) <= equals))
        place = taken + tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(centres + b * M + place, token.to(tl.int64), mask=chosen)
        real = value > _LOWEST_KEY
        tl.store(slot_of + b * NP + token, tl.where(chosen & real, place, -1), mask=token < N)
        taken += tl.sum(chosen.to(tl.int32), 0)
        seen += tl.sum(equal, 0)


@triton.jit
def assign_kernel(
    norm, near, neighbour, slot_of, assign, query, count, N, NP,
    TRUSTED: tl.constexpr, KEEP: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """assign (B, N): a centre's own cluster, or that of the nearest centre if it certainly is among the neighbours."""
    b = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    real = tl.load(norm + b * NP + token, mask=token < N, other=float("inf")) < float("inf")
    own = tl.load(slot_of + b * NP + token, mask=real, other=-1)
    cluster = tl.where(own >= 0, own, 0)
    unresolved = real & (own < 0)
    # A centre at the distance of the end of the list is not certain: another one at that distance, with a lower index,
    # may be missing from the list.
    end = tl.load(near + (b * NP + token) * KEEP + KEEP - 1, mask=unresolved, other=0.0)
    for place in tl.static_range(TRUSTED):
        at = (b * NP + token) * KEEP + place
        index = tl.load(neighbour + at, mask=unresolved, other=-1)
        other = tl.load(slot_of + b * NP + index, mask=index >= 0, other=-1)
        distance = tl.load(near + at, mask=unresolved, other=float("inf"))
        certain = unresolved & (other >= 0) & (distance < end)
        cluster = tl.where(certain, other, cluster)
        unresolved = unresolved & (certain == 0)
    tl.store(assign + b * N + token, cluster.to(tl.int64), mask=token < N)
    _gather_unresolved(unresolved, token, query, count, b, NP, CHUNK)


def dpc_knn(
    x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None, *, strict: bool = False
) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`.

    Args:
        x: (B, N, C) float32, contiguous. Tokens with a feature beyond 2^50 from the mean, infinite or NaN are
            treated as if masked.
        num_clusters: M.
        k: number of neighbours that determine the density.
        mask: (B, N) bool, true for real tokens; None if all tokens are real.
        strict: select candidates by IEEE float32 products instead of TF32 ones.

    Raises:
        ValueError: `x` is not float32.
    """
    if x.dtype != torch.float32:
        raise ValueError(f"the Triton kernels cluster float32 features, but x is {x.dtype}: use backend='torch'")
    with on_device_of(x):
        return _Clustering(x, num_clusters, min(k, x.shape[1]), mask, strict).run()


class _Clustering:
    """Arguments and working arrays of one call; each step below is one kernel launch."""

    def __init__(self, x: Tensor, num_clusters: int, k: int, mask: Tensor | None, strict: bool) -> None:
        self.x, self.k, self.num_clusters, self.strict = x, k, num_clusters, strict
        self.mask = None if mask is None else mask.contiguous()
        self.batch, self.n, self.c = x.shape
        self.sizes = SIZES[architecture(x.device)]
        self.search_size = self.sizes.strict_search if strict else self.sizes.search
        # Padding to whole blocks: the inner loop of the search needs no masks, and rows are aligned for any C.
        self.np = round_up(self.n, max(self.search_size.rows, self.search_size.columns))
        self.cp = round_up(self.c, self.search_size.channels)
        self.keep = triton.next_power_of_2(max(k + _SPARE, 8))
        self.trusted = self.keep - _SPARE
        # Unresolved tokens are gathered within chunks. Larger chunks waste fewer rows of a search's last tile.
        self.chunk = min(self.sizes.resolve.rows, triton.next_power_of_2(self.np))

        self.norm = self._empty()
        self.from_first = self._empty()
        self.sparsity = self._empty()
        self.delta = self._empty()
        self.near = self._empty(self.keep)
        self.neighbour = self._empty(self.keep, dtype=torch.int32)
        self.found = self._empty(self.keep, dtype=torch.int32)
        self.slot_of = self._empty(dtype=torch.int32)
        self.query = self._empty(dtype=torch.int32)
        self.count = x.new_empty(self.batch, triton.cdiv(self.np, self.chunk), dtype=torch.int32)
        self.z = self._empty(self.cp)
        self.centres = x.new_empty(self.batch, num_clusters, dtype=torch.int64)
        self.assign = x.new_empty(self.batch, self.n, dtype=torch.int64)

    def run(self) -> tuple[Tensor, Tensor]:
        """Launch the kernels: centred features, neighbours and densities, deltas, centres, clusters."""
        self._centre()
        self._search(_EVERYTHING.value, self.keep)
        self._rescore_neighbours()
        chunks = (self.count.shape[1], self.batch)
        delta_kernel[chunks](
            self.norm, self.near, self.neighbour, self.sparsity, self.delta, self.query, self.count, self.np,
            self.trusted, self.keep, self.chunk, **self.sizes.resolve.options,
        )  # fmt: skip
        self._search(_DENSER.value, _KEEP_NEAREST)
        self._rescore_search(_DENSER.value)
        self._choose()
        assign_kernel[chunks](
            self.norm, self.near, self.neighbour, self.slot_of, self.assign, self.query, self.count, self.n, self.np,
            self.trusted, self.keep, self.chunk, **self.sizes.resolve.options,
        )  # fmt: skip
        self._search(_CENTRES.value, _KEEP_NEAREST)
        self._rescore_search(_CENTRES.value)
        return self.centres, self.assign

    def _empty(self, *width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.x.new_empty(self.batch, self.np, *width, dtype=dtype)

    def _centre(self) -> None:
        shift = self.x.new_empty(self.batch, self.c)
        mask = self.x if self.mask is None else self.mask
        size = self.sizes.shift
        shift_kernel[triton.cdiv(self.c, size.channels), self.batch](
            self.x, mask, shift, self.n, self.c, self.mask is not None, size.rows, size.channels, **size.options
        )
        if self.mask is None:
            first = torch.zeros(self.batch, dtype=torch.int64, device=self.x.device)
        else:
            first = self.mask.int().argmax(1)
        size = self.sizes.centre
        centre_kernel[triton.cdiv(self.np, size.rows), self.batch](
            self.x, mask, first, shift, self.z, self.norm, self.from_first, self.n, self.c, self.np, self.cp,
            self.mask is not None, not self.strict, size.rows, size.channels, **size.options,
        )  # fmt: skip
        self.rounding_limits = rounding_limit(self.from_first)

    def _search(self, among: int, keep: int) -> None:
        size = self.search_size
        search_kernel[self.np // size.rows, self.batch](
            self.z, self.norm, self.sparsity, self.centres, self.query, self.count, self.found,
            self.rounding_limits, self.np, self.cp, self.num_clusters,
            among, keep, self.chunk, size.rows, size.columns, size.channels, "ieee" if self.strict else "tf32",
            **size.options,
        )  # fmt: skip

    def _rescore_neighbours(self) -> None:
        size = self.sizes.rescore
        rescore_neighbours_kernel[self.np // size.rows, self.batch](
            self.x, self.norm, self.found, self.rounding_limits, self.near, self.neighbour, self.sparsity,
            self.n, self.c, self.np, self.k, self.keep, size.rows, size.channels, **size.options,
        )  # fmt: skip

    def _rescore_search(self, among: int) -> None:
        size = self.sizes.rescore
        rescore_search_kernel[self.np // size.rows, self.batch](
            self.x, self.centres, self.query, self.count, self.found, self.rounding_limits, self.delta, self.assign,
            self.n, self.c, self.np, self.num_clusters,
            among, _KEEP_NEAREST, self.chunk, size.rows, size.channels, **size.options,
        )  # fmt: skip

    def _choose(self) -> None:
        size = self.sizes.choose
        rows = min(size.rows, triton.next_power_of_2(self.n))
        key = self._empty(dtype=torch.int64)
        choose_kernel[(self.batch,)](
            self.norm, self.sparsity, self.delta, key, self.centres, self.slot_of, self.n, self.np, self.num_clusters,
            rows, **size.options,
        )  # fmt: skip

"""The Triton kernels against the specification: on a GPU, or in Triton's interpreter on a CPU.

The interpreter must be chosen before the kernels are imported, and it changes Triton for the whole process. Therefore,
without a GPU, these tests are skipped here, and `test_triton_interpreter.py` runs this file in a separate process. On a
GPU the sizes are larger. Memory that the kernels allocate is filled with NaN first, which reveals elements that are
never written, or read before they are written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, one_hot

from kernels.constants import EPSILON
from kernels.dpc_knn import reference_backend as reference

pytest.importorskip("triton")
ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("there is no GPU, and the interpreter is not on in this process", allow_module_level=True)

DEVICE = "cuda" if ON_GPU else "cpu"
dpc_knn = import_module("kernels.dpc_knn.triton_backend")
segments = import_module("kernels.segments.triton_backend")
token_conv = import_module("kernels.token_conv.triton_backend")

Size = tuple[int, int]
# Batch, tokens, channels, clusters, k: below, at and above whole blocks, and fewer tokens than k.
SMALL = [(2, 49, 40, 13, 5), (1, 64, 16, 16, 5), (1, 130, 320, 33, 5), (1, 97, 17, 24, 3), (1, 70, 8, 20, 9)]
TINY = [(2, 1, 8, 1, 5), (1, 3, 5, 2, 5), (1, 7, 8, 7, 1)]
LARGE = [(2, 3136, 128, 784, 5), (3, 784, 320, 196, 5), (2, 196, 512, 49, 5), (1, 5000, 33, 1250, 5)]
SHAPES = SMALL + TINY + (LARGE if ON_GPU else [])
TIED = [(2, 90, 4, 40, 5)] + ([(2, 3136, 6, 784, 5)] if ON_GPU else [])


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory is filled with NaN, or with an index far out of range."""

    def poisoning(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def poisoned(*args: Any, **kwargs: Any) -> Tensor:
            made = make(*args, **kwargs)
            return made.fill_(torch.nan if made.is_floating_point() else 2**30)

        return poisoned

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoning(torch.Tensor.new_empty))
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poisoning(getattr(torch, name)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def cluster(x: Tensor, clusters: int, *, k: int = 5, mask: Tensor | None = None, strict: bool = True) -> list[Tensor]:
    return list(dpc_knn.dpc_knn(x, clusters, k=k, mask=mask, strict=strict))


def assert_equal(result: list[Tensor], expected: Any) -> None:
    for a, b in zip(result, expected, strict=True):
        assert a.dtype == torch.int64
        assert torch.equal(a.cpu(), b.cpu())


# Clustering


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_features(shape: tuple[int, int, int, int, int], strict: bool) -> None:
    batch, tokens, channels, clusters, k = shape
    x = normal(batch, tokens, channels) + 3
    result = cluster(x, clusters, k=k, strict=strict)
    expected = reference.dpc_knn(x.cpu().double(), clusters, k=k)
    if tokens <= 200:
        assert_equal(result, expected)
        return
    # Float32 sums may put two nearly equal distances in the other order.
    shared = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(result[0], expected[0], strict=True))
    assert shared >= 0.998 * expected[0].numel()
    centres = x.double().gather(1, result[0][:, :, None].expand(-1, -1, channels))
    to_own_centre = (x - centres.gather(1, result[1][:, :, None].expand(-1, -1, channels))).norm(dim=2)
    to_nearest_centre = torch.cdist(x.double(), centres).amin(2)
    assert (to_own_centre <= to_nearest_centre * (1 + 1e-3) + 1e-6).double().mean() >= 0.9999


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", TIED)
@pytest.mark.parametrize("offset", [0, 1000])
def test_ties_go_to_the_lower_index(shape: tuple[int, int, int, int, int], strict: bool, offset: int) -> None:
    batch, tokens, channels, clusters, k = shape
    x = integers(5, batch, tokens, channels, seed=offset).float() + offset
    assert_equal(cluster(x, clusters, k=k, strict=strict), reference.dpc_knn(x.cpu(), clusters, k=k))


@pytest.mark.parametrize("strict", [True, False])
def test_equal_tokens(strict: bool) -> None:
    for x in (torch.full((1, 80, 8), 0.37, device=DEVICE), normal(6, 24)[integers(6, 1, 100)]):
        assert_equal(cluster(x, 30, strict=strict), reference.dpc_knn(x.cpu(), 30, k=5))


@pytest.mark.parametrize("strict", [True, False])
def test_tokens_that_differ_by_rounding_count_as_equal(strict: bool) -> None:
    x = normal(6, 24)[integers(6, 2, 100)]
    assert_equal(cluster(x + 1e-6 * normal(*x.shape, seed=1), 30, strict=strict), reference.dpc_knn(x.cpu(), 30, k=5))


@pytest.mark.parametrize(("clusters", "strict"), [(10, True), (40, False)])
def test_masked_tokens_influence_nothing(clusters: int, strict: bool) -> None:
    x = normal(2, 90, 12)
    mask = integers(2, 2, 90).bool()
    mask[1] = torch.arange(90, device=DEVICE) < 30  # fewer than 40 clusters
    expected = reference.dpc_knn(x.cpu().double(), clusters, k=5, mask=mask.cpu())
    for filler in (7.0, torch.nan, torch.inf):
        padded = x.masked_fill(~mask[:, :, None], filler)
        assert_equal(cluster(padded, clusters, mask=mask, strict=strict), expected)


def test_an_image_without_tokens() -> None:
    centres, assign = cluster(normal(1, 20, 4), 3, mask=torch.zeros(1, 20, dtype=torch.bool, device=DEVICE))
    assert centres.tolist() == [[0, 1, 2]]
    assert not assign.any()


@pytest.mark.parametrize(("bad", "strict"), [(torch.nan, True), (torch.inf, False), (-torch.inf, True), (3e38, False)])
def test_indices_stay_in_range(bad: float, strict: bool) -> None:
    x = normal(3, 60, 4)
    x[0, 7] = bad
    x[1] = bad
    centres, assign = cluster(x, 17, strict=strict)
    assert centres.min() >= 0 and centres.max() < 60
    assert (centres.diff(dim=1) > 0).all()
    assert assign.min() >= 0 and assign.max() < 17
    assert_equal([centres[2:], assign[2:]], cluster(x[2:], 17, strict=strict))


@pytest.mark.parametrize("strict", [True, False])
def test_an_image_does_not_depend_on_its_batch(strict: bool) -> None:
    x = normal(3, 3000 if ON_GPU else 60, 24)
    whole = cluster(x, 19, strict=strict)
    for some in (slice(1, 2), slice(1, 3)):
        assert_equal([t[some] for t in whole], cluster(x[some], 19, strict=strict))


@pytest.mark.parametrize("strict", [True, False])
def test_repeated_runs_are_identical(strict: bool) -> None:
    x = normal(2, 3136, 16) if ON_GPU else normal(1, 16, 16)
    first = cluster(x, 8, strict=strict)
    for _ in range(19):
        assert_equal(cluster(x, 8, strict=strict), first)


def test_unresolved_tokens_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With k = 1, the lists of neighbours resolve hardly any token; the others fill several chunks here."""
    sizes = dpc_knn.SIZES[dpc_knn.architecture(torch.device(DEVICE))]
    small = replace(sizes, resolve=replace(sizes.resolve, rows=64), choose=replace(sizes.choose, rows=32))
    monkeypatch.setattr(dpc_knn, "SIZES", dict.fromkeys(dpc_knn.SIZES, small))
    x = normal(2, 150, 6)
    assert_equal(cluster(x, 50, k=1), reference.dpc_knn(x.cpu().double(), 50, k=1))


def test_other_dtypes_raise() -> None:
    with pytest.raises(ValueError, match=r"float64: use backend='torch'"):
        cluster(normal(1, 8, 4).double(), 2)


@pytest.mark.skipif(not ON_GPU, reason="measures GPU memory")
def test_memory_is_linear_in_tokens() -> None:
    peaks = []
    for tokens in (8192, 16384):
        x = normal(1, tokens, 64)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        cluster(x, tokens // 4)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 2.1 * peaks[0]


# Segments


def entries(rows: int, count: int, targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row and segment of each entry, and the offsets of the segments; the last segment and some others are empty."""
    segment = integers(targets - 1, count, seed=1).sort()[0] // 2 * 2
    offsets = torch.searchsorted(segment, torch.arange(targets + 1, device=DEVICE))
    return integers(rows, count, seed=2), segment, offsets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "channels", "targets", "count"), [(7, 5, 4, 30), (9, 130, 6, 41), (3, 1, 5, 0)])
def test_segment_sum(dtype: torch.dtype, rows: int, channels: int, targets: int, count: int) -> None:
    source = normal(rows, channels).to(dtype)
    index, segment, offsets = entries(rows, count, targets)
    weight = normal(count, seed=3).to(torch.float64 if dtype == torch.float64 else torch.float32)
    # The interpreter truncates float32 to bfloat16; a GPU rounds.
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for factor in (None, weight):
        scaled = source.double()[index] * (1 if factor is None else factor.double()[:, None])
        expected = torch.zeros(targets, channels, dtype=torch.float64, device=DEVICE).index_add_(0, segment, scaled)
        result = segments.segment_sum(source, index, offsets, factor)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
        assert not result[-1].any()


def test_segment_sum_adds_in_ascending_order() -> None:
    # 1 + 2^25 is rounded to 2^25 in float32, so every other order gives another sum.
    source = torch.tensor([[1.0], [2.0**25], [-(2.0**25)]], device=DEVICE)
    for order in ([0, 1, 2, 0, 0], [1, 2, 0, 0, 0], [1, 0, 0, 2, 0, 0]):
        offsets = torch.tensor([0, len(order)], device=DEVICE)
        result = segments.segment_sum(source, torch.tensor(order, device=DEVICE), offsets)
        total = torch.zeros(())
        for row in order:
            total = total + source[row, 0].cpu()
        assert result.item() == total.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_segment_total(dtype: torch.dtype) -> None:
    for count in (0, 100):
        _, segment, offsets = entries(3, count, 35)
        weight = normal(count).to(dtype)
        expected = torch.zeros(35, dtype=torch.float64, device=DEVICE).index_add_(0, segment, weight.double())
        result = segments.segment_total(weight, offsets)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_row_dots(dtype: torch.dtype) -> None:
    left, right = normal(7, 150).to(dtype), normal(5, 150, seed=1).to(dtype)
    index, segment, _ = entries(7, 13, 5)
    expected = (left.double()[index] * right.double()[segment]).sum(1)
    result = segments.row_dots(left, index, right, segment)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


# Token convolution


def plan_arguments(token_of_cell: Tensor, tokens: int, grid: Size, size: Size) -> tuple[Any, ...]:
    """The arguments of `token_conv` from `token_of_cell` to `map_size`."""
    batch, cells = token_of_cell.shape
    row, column = torch.arange(grid[0]) * size[0] // grid[0], torch.arange(grid[1]) * size[1] // grid[1]
    pixel_of_cell = (row[:, None] * size[1] + column).flatten().to(DEVICE)
    flat = (token_of_cell + torch.arange(batch, device=DEVICE)[:, None] * tokens).flatten()
    by_token, by_pixel = flat.sort(stable=True)[1], pixel_of_cell.sort(stable=True)[1]
    token_offsets = torch.searchsorted(flat[by_token], torch.arange(batch * tokens + 1, device=DEVICE))
    pixels = torch.arange(size[0] * size[1] + 1, device=DEVICE)
    pixel_offsets = torch.searchsorted(pixel_of_cell[by_pixel], pixels)
    return token_of_cell, by_token % cells, token_offsets, pixel_of_cell, by_pixel, pixel_offsets, size


def specification(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """Token convolution by products with membership matrices, differentiable."""
    token_of_cell, _, _, pixel_of_cell, _, _, (h, w), activate = arguments
    member = one_hot(token_of_cell, x.shape[1]).to(x.dtype)  # (B, N_init, N)
    pixel = one_hot(pixel_of_cell, h * w).to(x.dtype)  # (N_init, HW)
    before = pixel.T @ (member @ x) / (pixel.sum(0)[:, None] + EPSILON)  # (B, HW, C)
    after = conv2d(before.mT.unflatten(2, (h, w)), weight, bias, padding=1, groups=x.shape[2]).flatten(2).mT
    y = skip * x + member.mT @ (pixel @ after) / (member.sum(1)[:, :, None] + EPSILON)
    return gelu(y) if activate else y


def problem(batch: int, tokens: int, channels: int, grid: Size, size: Size) -> tuple[list[Tensor], tuple[Any, ...]]:
    """x, weight, bias and skip, and the plan arguments. One token has most cells of an image; some have none."""
    token_of_cell = integers(max(1, tokens - 1), batch, grid[0] * grid[1])
    token_of_cell[0, : grid[0] * grid[1] * 2 // 3] = min(3, tokens - 1)
    leaves = [
        normal(batch, tokens, channels, seed=1),
        normal(channels, 1, 3, 3, seed=2),
        normal(channels, seed=3),
        normal(channels, seed=4),
    ]
    return leaves, plan_arguments(token_of_cell, tokens, grid, size)


# Batch, tokens, channels, grid, map, GELU.
CONVOLUTIONS = [
    (3, 13, 40, (8, 8), (4, 4), True),
    (2, 37, 33, (7, 9), (4, 5), False),
    (1, 1, 3, (2, 2), (1, 1), True),
    (1, 30, 32, (6, 7), (6, 7), False),
] + ([(4, 784, 1024, (56, 56), (28, 28), True), (3, 49, 2048, (56, 56), (7, 7), True)] if ON_GPU else [])


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("programs", [512, 1])
def test_token_conv(
    case: tuple[int, int, int, Size, Size, bool], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, with one program per image and with one program for all images."""
    share_programs(monkeypatch, programs)
    leaves, arguments = problem(*case[:5])
    arguments = (*arguments, case[5])
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    expected = specification(*exact, arguments)
    grad = normal(*expected.shape, seed=5)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    results = [token_conv.token_conv(*leaves, *arguments)]
    results += token_conv.token_conv_backward(grad, *leaves, *arguments)
    for result, target, like in zip(results, (expected, *expected_grads), (leaves[0], *leaves), strict=True):
        assert result.dtype == torch.float32 and result.shape == like.shape
        torch.testing.assert_close(result.double(), target, rtol=1e-5, atol=2e-6 * target.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_token_conv_in_low_precision(dtype: torch.dtype) -> None:
    leaves, arguments = problem(2, 13, 40, (8, 8), (4, 4))
    arguments = (*arguments, True)
    leaves = [leaf.to(dtype) for leaf in leaves]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    expected = specification(*exact, arguments)
    grad = normal(*expected.shape, seed=5).to(dtype)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    results = [token_conv.token_conv(*leaves, *arguments)]
    results += token_conv.token_conv_backward(grad, *leaves, *arguments)
    tolerance = 1.01 * torch.finfo(dtype).eps  # one rounding of the result; the interpreter truncates
    for result, target in zip(results, (expected, *expected_grads), strict=True):
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), target, rtol=tolerance, atol=1e-5 * target.abs().max().item())


def test_token_conv_is_deterministic_and_an_image_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    share_programs(monkeypatch, 4)
    leaves, arguments = problem(3, 13, 40, (8, 8), (4, 4))
    arguments = (*arguments, True)
    grad = normal(3, 13, 40, seed=5)

    def run() -> list[Tensor]:
        backward = token_conv.token_conv_backward(grad, *leaves, *arguments)
        return [token_conv.token_conv(*leaves, *arguments), *backward]

    first = run()
    for _ in range(19 if ON_GPU else 2):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    alone = ([leaves[0][1:2], *leaves[1:]], (*plan_arguments(arguments[0][1:2], 13, (8, 8), (4, 4)), True))
    assert torch.equal(token_conv.token_conv(*alone[0], *alone[1]), first[0][1:2])
    assert torch.equal(token_conv.token_conv_backward(grad[1:2], *alone[0], *alone[1])[0], first[1][1:2])


def share_programs(monkeypatch: pytest.MonkeyPatch, programs: int) -> None:
    """Set the number of programs that share the images."""
    sizes = {name: replace(sizes, programs=programs) for name, sizes in token_conv.SIZES.items()}
    monkeypatch.setattr(token_conv, "SIZES", sizes)

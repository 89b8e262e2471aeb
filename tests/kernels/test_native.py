"""The C++ functions: clustering against its specification, everything else against float64 formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import native
from kernels.dpc_knn import reference_backend as reference


@pytest.fixture(autouse=True)
def _skip_all_without_compiler() -> None:
    if not native.available():
        pytest.skip(native.reason())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Context in which PyTorch uses that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def assert_equal(results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(results) == len(expected)
    for a, b in zip(results, expected):
        assert torch.equal(a, b)


def assert_independent_of_threads(function: Callable[[], Sequence[Tensor]]) -> None:
    with threads(1):
        expected = function()
    for count in (2, 3):
        with threads(count):
            assert_equal(function(), expected)


# Clustering


def lattice(batch: int, tokens: int, channels: int, seed: int = 0) -> Tensor:
    """Small integers: every distance is exact in float32, and most occur many times."""
    return torch.randint(-2, 3, (batch, tokens, channels), generator=generator(seed)).float()


def shared_pairs(assign: Tensor, expected: Tensor) -> float:
    """Share of the pairs of tokens in one cluster of `expected` (N,) that are also in one cluster of `assign` (N,)."""
    together = expected[:, None] == expected
    return ((assign[:, None] == assign) & together).sum().item() / together.sum().item()


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    tokens=st.integers(1, 150),
    channels=st.integers(1, 40),
    share=st.floats(0, 1),
    k=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_dpc_knn_with_many_ties(batch: int, tokens: int, channels: int, share: float, k: int, seed: int) -> None:
    x = lattice(batch, tokens, channels, seed)
    clusters = max(1, round(share * tokens))
    assert_equal(native.dpc_knn(x, clusters, k=k), reference.dpc_knn(x, clusters, k=k))


@pytest.mark.parametrize("shape", [(1, 700, 3, 175), (1, 150, 320, 37), (1, 400, 65, 5)])
def test_dpc_knn_of_many_tokens_with_ties(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    for x in (lattice(batch, tokens, channels), torch.full((batch, tokens, channels), 0.37)):
        assert_equal(native.dpc_knn(x, clusters, k=5), reference.dpc_knn(x, clusters, k=5))


@pytest.mark.parametrize("shape", [(3, 60, 8, 15), (2, 97, 5, 25), (1, 150, 320, 37), (1, 700, 17, 175)])
def test_dpc_knn_of_random_features(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    for x in (random(batch, tokens, channels), random(batch, tokens, channels) + 30):
        centres, assign = native.dpc_knn(x, clusters, k=5)
        expected = reference.dpc_knn(x.double(), clusters, k=5)
        assert torch.equal(centres.sort()[0], centres)
        assert torch.equal(assign.gather(1, centres), torch.arange(clusters).expand(batch, -1))
        for image in range(batch):  # results may differ where distances are equal in float32
            assert shared_pairs(assign[image], expected[1][image]) > 0.99


def test_dpc_knn_of_duplicates() -> None:
    x = random(2, 50, 24).repeat_interleave(4, dim=1)  # distances of exactly 0
    assert_equal(native.dpc_knn(x, 40, k=3), reference.dpc_knn(x.double(), 40, k=3))


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_dpc_knn_of_fewer_tokens_than_neighbours(tokens: int) -> None:
    x = random(2, tokens, 6)
    for clusters in range(1, tokens + 1):
        assert_equal(native.dpc_knn(x, clusters, k=5), reference.dpc_knn(x.double(), clusters, k=5))


@pytest.mark.parametrize("tokens", [60, 600])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_dpc_knn_indices_stay_in_range(tokens: int, bad: float) -> None:
    x = random(3, tokens, 4)
    x[0, 7] = bad
    x[1] = bad
    centres, assign = native.dpc_knn(x, tokens // 4, k=5)
    assert centres.min() >= 0 and centres.max() < tokens
    assert assign.min() >= 0 and assign.max() < tokens // 4
    assert torch.equal(assign[2:], native.dpc_knn(x[2:], tokens // 4, k=5)[1])


@pytest.mark.parametrize("tokens", [192, 700])
def test_masked_tokens_change_nothing(tokens: int) -> None:
    x = random(3, tokens, 24)
    mask = torch.rand(3, tokens, generator=generator()) < 0.6
    x[~mask] = float("nan")
    centres, assign = native.dpc_knn(x, 20, k=5, mask=mask)
    assert (assign[~mask] == 0).all()
    for image in range(3):
        real = mask[image].nonzero()[:, 0]
        real_centres, real_assign = native.dpc_knn(x[image, real][None], 20, k=5)
        assert torch.equal(centres[image], real[real_centres[0]])
        assert torch.equal(assign[image, real], real_assign[0])


def test_fewer_real_tokens_than_clusters() -> None:
    mask = torch.tensor([[False, True, False, True, False], [False] * 5])
    centres, assign = native.dpc_knn(random(2, 5, 3), 3, k=5, mask=mask)
    assert centres.tolist() == [[0, 1, 3], [0, 1, 2]]
    assert assign.tolist() == [[0, 1, 0, 2, 0], [0] * 5]


@pytest.mark.parametrize("tokens", [192, 700])
def test_dpc_knn_of_an_image_does_not_depend_on_its_batch(tokens: int) -> None:
    x = random(5, tokens, 24)
    centres, assign = native.dpc_knn(x, tokens // 4, k=5)
    for i in range(5):
        for some in (slice(i, i + 1), slice(i, None), slice(0, i + 1)):
            assert_equal(native.dpc_knn(x[some], tokens // 4, k=5), (centres[some], assign[some]))


@pytest.mark.parametrize("shape", [(1, 3136, 16), (3, 300, 48), (2, 1, 5)])
def test_dpc_knn_with_any_number_of_threads(shape: tuple[int, int, int]) -> None:
    x = random(*shape)
    assert_independent_of_threads(lambda: native.dpc_knn(x, max(1, shape[1] // 4), k=5))


# Convolutions

EPSILON = 1e-6
Size = tuple[int, int]
# token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets, map_size of `native.token_conv`
Cells = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Size]


def sorted_rows(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Entries sorted by row (entries,), the position where each row begins, and the end."""
    counts = torch.bincount(row, minlength=num_rows)
    return row.sort(stable=True)[1], F.pad(counts.cumsum(0), (1, 0))


def random_cells(batch: int, grid: Size, size: Size, tokens: int) -> Cells:
    """Cells of random tokens, some of which have no cell."""
    cells = grid[0] * grid[1]
    token_of_cell = torch.randint(0, tokens, (batch, cells), generator=generator(cells))
    row = torch.arange(grid[0]) * size[0] // grid[0]
    column = torch.arange(grid[1]) * size[1] // grid[1]
    pixel_of_cell = (row[:, None] * size[1] + column).flatten()
    flat_tokens = (token_of_cell + torch.arange(batch)[:, None] * tokens).flatten()
    token_cells, token_offsets = sorted_rows(flat_tokens, batch * tokens)
    pixel_cells, pixel_offsets = sorted_rows(pixel_of_cell, size[0] * size[1])
    return token_of_cell, token_cells % cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets, size


def cells_of_image(cells: Cells, image: int, tokens: int) -> Cells:
    """The cells of one image of the batch."""
    token_of_cell, token_cells, token_offsets, *rest = cells
    offsets = token_offsets[image * tokens : (image + 1) * tokens + 1]
    image_cells = token_cells[offsets[0] : offsets[-1]]
    return (token_of_cell[image : image + 1], image_cells, offsets - offsets[0], *rest)  # type: ignore[return-value]


def plain_conv(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor, cells: Cells | Size) -> Tensor:
    """Token convolution by products with matrices; `cells` is the map's size if the tokens are its pixels."""
    if len(cells) == 2:
        to_map, to_token, size = torch.eye(cells[0] * cells[1], dtype=x.dtype)[None], None, cells
    else:
        token_of_cell, _, _, pixel_of_cell, _, _, size = cells
        tokens = F.one_hot(token_of_cell, x.shape[1]).to(x.dtype)  # (B, N_init, N)
        pixels = F.one_hot(pixel_of_cell, size[0] * size[1]).to(x.dtype)  # (N_init, HW)
        to_map = pixels.T @ tokens / (pixels.sum(0)[:, None] + EPSILON)
        to_token = tokens.mT @ pixels / (tokens.sum(1)[:, :, None] + EPSILON)
    m = (to_map @ x).mT.unflatten(2, size)
    m = F.conv2d(m, weight, bias, padding=1, groups=x.shape[2]).flatten(2).mT  # (B, HW, C)
    return (m if to_token is None else to_token @ m) + skip * x


def parameters(channels: int) -> list[Tensor]:
    """weight, bias, skip"""
    return [random(channels, 1, 3, 3, seed=1) / 3, random(channels, seed=2), random(channels, seed=3)]


def assert_close_to_float64(results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == torch.float32
        scale = max([1.0, *value.abs().flatten().tolist()])
        torch.testing.assert_close(result.double(), value, rtol=1e-5, atol=3e-6 * scale)


def expected_conv(
    x: Tensor, grad: Tensor, parameters: list[Tensor], cells: Cells | Size, *, gelu: bool
) -> list[Tensor]:
    """Result and gradients in float64."""
    leaves = [t.double().requires_grad_() for t in (x, *parameters)]
    y = plain_conv(*leaves, cells)
    y = F.gelu(y) if gelu else y
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.double())]


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(
    ("grid", "size", "tokens", "channels"),
    [
        ((8, 8), (4, 4), 10, 5),
        ((7, 9), (4, 5), 13, 40),
        ((5, 3), (1, 1), 3, 65),
        ((6, 6), (6, 6), 36, 16),
        ((25, 25), (13, 13), 1, 130),
        ((40, 40), (20, 20), 400, 20),
        ((112, 112), (56, 56), 3136, 17),
    ],
)
def test_token_conv(grid: tuple[int, int], size: tuple[int, int], tokens: int, channels: int, gelu: bool) -> None:
    cells = random_cells(2, grid, size, tokens)
    x, grad = random(2, tokens, channels), random(2, tokens, channels, seed=4)
    results = [
        native.token_conv(x, *parameters(channels), *cells, gelu=gelu),
        *native.token_conv_backward(grad, x, *parameters(channels), *cells, gelu=gelu),
    ]
    if tokens < 3000:  # with more tokens, the matrices are too large
        assert_close_to_float64(results, expected_conv(x, grad, parameters(channels), cells, gelu=gelu))
    for image in range(2):
        one = slice(image, image + 1)
        arguments = (*parameters(channels), *cells_of_image(cells, image, tokens), gelu)
        assert torch.equal(native.token_conv(x[one], *arguments), results[0][one])
        assert torch.equal(native.token_conv_backward(grad[one], x[one], *arguments)[0], results[1][one])


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize(("size", "channels"), [((4, 5), 5), ((1, 1), 3), ((7, 2), 70), ((2, 9), 64), ((30, 30), 33)])
def test_grid_conv(size: tuple[int, int], channels: int, with_skip: bool, gelu: bool) -> None:
    tokens = size[0] * size[1]
    x, grad = random(2, tokens, channels), random(2, tokens, channels, seed=4)
    weight, bias, skip = parameters(channels)
    own_skip = skip if with_skip else torch.zeros_like(skip)
    expected = expected_conv(x, grad, [weight, bias, own_skip], size, gelu=gelu)
    arguments = (weight, bias, skip if with_skip else None, size, gelu)
    y = native.grid_conv(x, *arguments)
    *grads, grad_skip = native.grid_conv_backward(grad, x, *arguments)
    assert_close_to_float64([y, *grads], expected[:-1])
    assert (grad_skip is not None) == with_skip
    if grad_skip is not None:
        assert_close_to_float64([grad_skip], expected[-1:])
    for image in (slice(0, 1), slice(1, 2)):
        assert torch.equal(native.grid_conv(x[image], *arguments), y[image])
        assert torch.equal(native.grid_conv_backward(grad[image], x[image], *arguments)[0], grads[0][image])


@pytest.mark.parametrize("gelu", [False, True])
def test_convolutions_with_any_number_of_threads(gelu: bool) -> None:
    x, grad, weights = random(3, 64, 70), random(3, 64, 70, seed=4), parameters(70)
    cells = random_cells(3, (16, 16), (8, 8), tokens=64)
    for function in (
        (lambda: [native.token_conv(x, *weights, *cells, gelu=gelu)]),
        (lambda: native.token_conv_backward(grad, x, *weights, *cells, gelu=gelu)),
        (lambda: [native.grid_conv(x, *weights, map_size=(8, 8), gelu=gelu)]),
        (lambda: native.grid_conv_backward(grad, x, *weights, map_size=(8, 8), gelu=gelu)),
    ):
        assert_independent_of_threads(function)


def test_gelu_is_exact() -> None:
    """On a map of one pixel, with a convolution of 0 and a skip of 1, every channel is GELU of one number."""
    numbers = torch.cat([torch.linspace(-9, 9, 40001), random(2000) * 1e-3, torch.tensor([0.0, -0.0, 1e30, -1e30])])
    count = len(numbers)
    parameters = (torch.zeros(count, 1, 3, 3), torch.zeros(count), torch.ones(count))
    exact = numbers.double().requires_grad_()
    expected = F.gelu(exact)
    expected.sum().backward()
    x, grad_y = numbers.view(1, 1, -1), torch.ones(1, 1, count)
    y = native.grid_conv(x, *parameters, map_size=(1, 1), gelu=True).flatten().double()
    grad = native.grid_conv_backward(grad_y, x, *parameters, map_size=(1, 1), gelu=True)[0].flatten().double()
    # The error of PyTorch's own float32 GELU is up to 3.7e-7 of |x|, that of its derivative up to 3.1e-7.
    assert ((y - expected).abs() <= 2.7e-7 * numbers.double().abs()).all()
    assert exact.grad is not None and (grad - exact.grad).abs().max() <= 2.7e-7


def test_gelu_of_nan_and_infinity() -> None:
    numbers = torch.tensor([float("nan"), float("inf"), 7.0])
    parameters = (torch.zeros(3, 1, 3, 3), torch.zeros(3), torch.ones(3))
    y = native.grid_conv(numbers.view(1, 1, -1), *parameters, map_size=(1, 1), gelu=True).flatten()
    assert y[0].isnan() and y[1:].tolist() == [float("inf"), 7.0]


# Segments


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    channels=st.integers(1, 300),
    entries=st.integers(0, 200),
    segments=st.integers(0, 40),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_segment_sum(rows: int, channels: int, entries: int, segments: int, weighted: bool, seed: int) -> None:
    source = random(rows, channels, seed=seed)
    index = torch.randint(0, rows, (entries,), generator=generator(seed))
    ends = torch.randint(0, entries + 1, (segments + 1,), generator=generator(seed)).sort()[
        0
    ]  # some entries are in no segment
    weight = random(entries, seed=seed + 1)
    factor = weight if weighted else torch.ones(entries)
    expected = torch.zeros(segments, channels, dtype=torch.float64)
    expected_total = torch.zeros(segments, dtype=torch.float64)
    for s in range(segments):
        entry = slice(int(ends[s]), int(ends[s + 1]))
        expected[s] = (source[index[entry]].double() * factor[entry, None].double()).sum(0)
        expected_total[s] = weight[entry].double().sum()
    assert_close_to_float64([native.segment_sum(source, index, ends, weight if weighted else None)], [expected])
    assert_close_to_float64([native.segment_total(weight, ends)], [expected_total])


def test_segment_sum_with_any_number_of_threads() -> None:
    rows, index = random(500, 200), torch.randint(0, 500, (4000,), generator=generator())
    offsets, weight = torch.arange(0, 4001, 8), random(4000)
    assert_independent_of_threads(lambda: [native.segment_sum(rows, index, offsets, weight)])


@pytest.mark.parametrize(("batch", "entries", "rows"), [(1, 1, 1), (3, 40, 7), (2, 3000, 784), (2, 5, 50)])
def test_sort_by_row(batch: int, entries: int, rows: int) -> None:
    row = torch.randint(0, rows, (batch, entries), generator=generator())
    flat_rows = (row + torch.arange(batch)[:, None] * rows).flatten()
    assert_equal(native.sort_by_row(row, rows), sorted_rows(flat_rows, batch * rows))


def defined_links(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> list[list[tuple[int, float, float]]]:
    """For each row of each image, its other rows in ascending order with both weights."""
    links: list[list[tuple[int, float, float]]] = []
    for image, (rows, others) in enumerate(zip(row.tolist(), other.tolist())):
        for r in range(num_rows):
            of_row = [o for x, o in zip(rows, others) if x == r]
            entries = []
            for o in sorted(set(of_row)):
                shared = of_row.count(o)
                weights = shared / (len(of_row) + 1e-6), shared / (others.count(o) + 1e-6)
                entries.append((image * num_others + o, *weights))
            links.append(entries)
    return links


@given(
    batch=st.integers(1, 3),
    cells=st.integers(1, 40),
    num_rows=st.integers(1, 12),
    num_others=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_link_rows(batch: int, cells: int, num_rows: int, num_others: int, seed: int) -> None:
    row = torch.randint(0, num_rows, (batch, cells), generator=generator(seed))
    other = torch.randint(0, num_others, (batch, cells), generator=generator(seed + 1))
    index, offsets, *weights = native.link_rows(row, other, num_rows, num_others)
    ends = offsets.tolist()
    found = [
        list(zip(index[a:b].tolist(), *(weight[a:b].tolist() for weight in weights)))
        for a, b in itertools.pairwise(ends)
    ]
    assert found == defined_links(row, other, num_rows, num_others)
    assert all(not values[ends[-1] :].any() for values in (index, *weights)), "unused entries"


def test_link_rows_equals_plain_pytorch_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    row, other = (torch.randint(0, rows, (5, 3136), generator=generator(rows)) for rows in (784, 196))
    monkeypatch.setenv("TCFORMER_KERNELS", "torch")
    expected = torch.ops.tcformer.link_rows(row, other, 784, 196)
    assert_equal(native.link_rows(row, other, 784, 196), expected)
    assert_independent_of_threads(lambda: native.link_rows(row, other, 784, 196))

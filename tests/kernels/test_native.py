from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import native
from kernels.dpc_knn import reference


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not native.available():
        pytest.skip(native.reason())


@contextmanager
def threads(count: int) -> Iterator[None]:
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


def assert_threads_do_not_matter(function: Callable[[], Sequence[Tensor]]) -> None:
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
    """Of the pairs of tokens that share a cluster in `expected` (N,), the part that does so in `assign`."""
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
    assert_equal(native.dpc_knn(x, clusters, k), reference.dpc_knn(x, clusters, k))


@pytest.mark.parametrize("shape", [(1, 1200, 3, 300), (1, 300, 320, 75), (1, 900, 65, 5)])
def test_dpc_knn_of_many_tokens_with_ties(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    for x in (lattice(batch, tokens, channels), torch.full((batch, tokens, channels), 0.37)):
        assert_equal(native.dpc_knn(x, clusters, 5), reference.dpc_knn(x, clusters, 5))


@pytest.mark.parametrize("shape", [(3, 60, 8, 15), (2, 97, 5, 25), (1, 300, 320, 75), (1, 1300, 17, 325)])
def test_dpc_knn_of_random_features(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    for x in (random(batch, tokens, channels), random(batch, tokens, channels) + 30):
        centres, assign = native.dpc_knn(x, clusters, 5)
        expected = reference.dpc_knn(x.double(), clusters, 5)
        assert torch.equal(centres.sort()[0], centres)
        assert torch.equal(assign.gather(1, centres), torch.arange(clusters).expand(batch, -1))
        for image in range(batch):  # they may differ where float32 cannot tell distances apart
            assert shared_pairs(assign[image], expected[1][image]) > 0.99


def test_dpc_knn_of_duplicates() -> None:
    x = random(2, 50, 24).repeat_interleave(4, dim=1)  # distances of exactly 0
    assert_equal(native.dpc_knn(x, 40, 3), reference.dpc_knn(x.double(), 40, 3))


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_dpc_knn_of_fewer_tokens_than_neighbours(tokens: int) -> None:
    x = random(2, tokens, 6)
    for clusters in range(1, tokens + 1):
        assert_equal(native.dpc_knn(x, clusters, 5), reference.dpc_knn(x.double(), clusters, 5))


@pytest.mark.parametrize("tokens", [60, 600])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_dpc_knn_stays_in_range(tokens: int, bad: float) -> None:
    x = random(3, tokens, 4)
    x[0, 7] = bad
    x[1] = bad
    centres, assign = native.dpc_knn(x, tokens // 4, 5)
    assert centres.min() >= 0 and centres.max() < tokens
    assert assign.min() >= 0 and assign.max() < tokens // 4
    assert torch.equal(assign[2:], native.dpc_knn(x[2:], tokens // 4, 5)[1])


@pytest.mark.parametrize("tokens", [192, 700])
def test_masked_tokens_change_nothing(tokens: int) -> None:
    x = random(3, tokens, 24)
    mask = torch.rand(3, tokens, generator=generator()) < 0.6
    x[~mask] = float("nan")
    centres, assign = native.dpc_knn(x, 20, 5, mask)
    assert (assign[~mask] == 0).all()
    for image in range(3):
        real = mask[image].nonzero()[:, 0]
        own_centres, own_assign = native.dpc_knn(x[image, real][None], 20, 5)
        assert torch.equal(centres[image], real[own_centres[0]])
        assert torch.equal(assign[image, real], own_assign[0])


def test_fewer_real_tokens_than_clusters() -> None:
    mask = torch.tensor([[False, True, False, True, False], [False] * 5])
    centres, assign = native.dpc_knn(random(2, 5, 3), 3, 5, mask)
    assert centres.tolist() == [[0, 1, 3], [0, 1, 2]]
    assert assign.tolist() == [[0, 1, 0, 2, 0], [0] * 5]


@pytest.mark.parametrize("tokens", [192, 700])
def test_dpc_knn_of_an_image_does_not_depend_on_its_batch(tokens: int) -> None:
    x = random(5, tokens, 24)
    centres, assign = native.dpc_knn(x, tokens // 4, 5)
    for i in range(5):
        for some in (slice(i, i + 1), slice(i, None), slice(0, i + 1)):
            assert_equal(native.dpc_knn(x[some], tokens // 4, 5), (centres[some], assign[some]))


@pytest.mark.parametrize("shape", [(1, 3136, 16), (3, 300, 48), (2, 1, 5)])
def test_dpc_knn_with_any_number_of_threads(shape: tuple[int, int, int]) -> None:
    x = random(*shape)
    assert_threads_do_not_matter(lambda: native.dpc_knn(x, max(1, shape[1] // 4), 5))

"""Clustering against its specification, and the specification against plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import dpc_knn, native
from kernels.dpc_knn.masks_and_parts import apportion

BACKENDS = ["torch", "native", "reference"]
# Batch, tokens, channels, clusters. With more than 512 tokens, the backend "torch" uses another method.
SHAPES = [(3, 60, 8, 15), (2, 97, 5, 25), (1, 513, 3, 129), (2, 700, 16, 175), (1, 1300, 2, 325)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lattice(batch: int, tokens: int, channels: int) -> Tensor:
    """Small integers: every distance is exact in float32, and most occur many times."""
    return torch.randint(-2, 3, (batch, tokens, channels), generator=generator(tokens)).float()


def assert_as_reference(x: Tensor, clusters: int, *, k: int = 5) -> None:
    expected_centres, expected_assign = dpc_knn(x, clusters, k, backend="reference")
    for backend in ("torch", None):  # None: the fastest one here
        centres, assign = dpc_knn(x, clusters, k, backend=backend)
        assert torch.equal(centres, expected_centres)
        assert torch.equal(assign, expected_assign)


def cluster_points(points: list[float], clusters: int, k: int) -> tuple[list[int], list[int]]:
    """Centres and assignment of points on a line, by DPC-KNN in plain Python."""
    n = len(points)
    distance = [[abs(a - b) for b in points] for a in points]
    sparsity = [sum(d * d for d in sorted(row)[:k]) / k for row in distance]
    rank = sorted(range(n), key=lambda i: (sparsity[i], i))
    delta = {}
    for place, i in enumerate(rank):
        delta[i] = min((distance[i][j] for j in rank[:place]), default=max(distance[i]))
    score = {i: (float("inf") if i == rank[0] else delta[i] * 2.718281828459045 ** -sparsity[i]) for i in range(n)}
    centres = sorted(sorted(range(n), key=lambda i: (-score[i], i))[:clusters])
    assign = [min(range(clusters), key=lambda c: (distance[i][centres[c]], c)) for i in range(n)]
    for cluster, centre in enumerate(centres):
        assign[centre] = cluster
    return centres, assign


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_plain_python(backend: str) -> None:
    for seed in range(20):
        points = torch.rand(12, generator=generator(seed), dtype=torch.float64) * 3
        centres, assign = dpc_knn(points.view(1, -1, 1), 4, k=3, backend=backend)
        assert (centres[0].tolist(), assign[0].tolist()) == cluster_points(points.tolist(), clusters=4, k=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_features(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    x = torch.randn(batch, tokens, channels, generator=generator(), dtype=torch.float64)
    assert_as_reference(x, clusters)
    assert_as_reference(x + 5, clusters, k=1)
    assert_as_reference(x, 1, k=9)


@pytest.mark.parametrize("shape", SHAPES)
def test_ties_go_to_the_lower_index(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, clusters = shape
    assert_as_reference(lattice(batch, tokens, channels), clusters)
    assert_as_reference(torch.full((batch, tokens, channels), 0.37), clusters)


@pytest.mark.parametrize("tokens", [10, 600])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_tokens(tokens: int, backend: str) -> None:
    centres, assign = dpc_knn(torch.full((1, tokens, 4), 0.37), 3, backend=backend)
    assert centres[0].tolist() == [0, 1, 2]
    assert assign[0].tolist() == [0, 1, 2] + [0] * (tokens - 3)


@pytest.mark.parametrize("backend", ["torch", "native", "portable", "reference"])
@pytest.mark.parametrize("tokens", [100, 600])
def test_tokens_that_differ_by_rounding_count_as_equal(tokens: int, backend: str) -> None:
    kinds = torch.randn(6, 24, generator=generator())
    x = kinds[torch.randint(0, 6, (2, tokens), generator=generator(1))]
    rounding = 1e-6 * torch.randn(x.shape, generator=generator(2))
    expected = dpc_knn(x, tokens // 4, backend="reference")
    for result, wanted in zip(dpc_knn(x + rounding, tokens // 4, backend=backend), expected, strict=True):
        assert torch.equal(result, wanted)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_fewer_tokens_than_neighbours(tokens: int) -> None:
    for clusters in range(1, tokens + 1):
        assert_as_reference(torch.randn(2, tokens, 6, generator=generator(), dtype=torch.float64), clusters)


@pytest.mark.parametrize("tokens", [64, 600])
def test_as_many_clusters_as_tokens(tokens: int) -> None:
    centres, assign = dpc_knn(lattice(1, tokens, 3), tokens)
    assert torch.equal(centres[0], torch.arange(tokens))
    assert torch.equal(assign[0], torch.arange(tokens))


@pytest.mark.parametrize("tokens", [64, 600])
def test_centres_are_in_their_own_cluster_and_tokens_in_the_nearest(tokens: int) -> None:
    x = torch.randn(2, tokens, 8, generator=generator(), dtype=torch.float64)
    centres, assign = dpc_knn(x, tokens // 4)
    assert torch.equal(assign.gather(1, centres), torch.arange(tokens // 4).expand(2, -1))
    distance = torch.cdist(x, x.gather(1, centres[:, :, None].expand(-1, -1, 8)))
    assert torch.equal(distance.argmin(2), assign)


@pytest.mark.parametrize("tokens", [192, 700])
def test_an_image_does_not_depend_on_its_batch(tokens: int) -> None:
    x = torch.randn(5, tokens, 24, generator=generator())
    centres, assign = dpc_knn(x, tokens // 4)
    for i in range(5):
        for some in (slice(i, i + 1), slice(i, None), slice(0, i + 1)):
            some_centres, some_assign = dpc_knn(x[some], tokens // 4)
            assert torch.equal(some_centres, centres[some])
            assert torch.equal(some_assign, assign[some])


@pytest.mark.parametrize("tokens", [192, 700])
def test_repeated_runs_are_identical(tokens: int) -> None:
    x = torch.randn(2, tokens, 24, generator=generator())
    first = dpc_knn(x, tokens // 4)
    for _ in range(20):
        again = dpc_knn(x.clone(), tokens // 4)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


@pytest.mark.parametrize("tokens", [192, 700])
def test_layout_does_not_matter(tokens: int) -> None:
    x = torch.randn(2, 24, tokens, generator=generator()).mT
    mask = (torch.rand(tokens, generator=generator()) < 0.6).expand(2, -1)
    assert not x.is_contiguous() and not mask.is_contiguous()
    for mask_view, contiguous_mask in ((None, None), (mask, mask.contiguous())):
        strided = dpc_knn(x, tokens // 8, mask=mask_view)
        contiguous = dpc_knn(x.contiguous(), tokens // 8, mask=contiguous_mask)
        assert torch.equal(strided[0], contiguous[0])
        assert torch.equal(strided[1], contiguous[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_clustered_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 192, 24, generator=generator()).to(dtype)
    expected = dpc_knn(x.float(), 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for features in (x, x.float()):
            centres, assign = dpc_knn(features, 48)
            assert torch.equal(centres, expected[0])
            assert torch.equal(assign, expected[1])


@pytest.mark.parametrize("tokens", [192, 1000])
def test_float32_stays_near_float64(tokens: int) -> None:
    # Far from the origin, where |a|^2 - 2ab + |b|^2 suffers from cancellation.
    x = torch.randn(2, tokens, 64, generator=generator()) + 30
    expected = dpc_knn(x.double(), tokens // 4, backend="reference")[0]
    centres = dpc_knn(x, tokens // 4)[0]
    shared = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(centres, expected))
    assert shared >= 0.99 * expected.numel()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [60, 600])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_indices_stay_in_range(backend: str, tokens: int, bad: float) -> None:
    x = torch.randn(3, tokens, 4, generator=generator())
    x[0, 7] = bad
    x[1] = bad
    centres, assign = dpc_knn(x, tokens // 4, backend=backend)
    assert centres.min() >= 0 and centres.max() < tokens
    assert assign.min() >= 0 and assign.max() < tokens // 4
    assert torch.equal(assign[2], dpc_knn(x[2:], tokens // 4, backend=backend)[1][0])


def test_no_gradient() -> None:
    x = torch.randn(1, 20, 4, requires_grad=True)
    assert not any(t.requires_grad for t in dpc_knn(x, 5))


def test_wrong_arguments_raise() -> None:
    x = torch.zeros(1, 8, 4)
    for wrong in (torch.zeros(8, 4), torch.zeros(1, 0, 4)):
        with pytest.raises(ValueError, match="at least one token"):
            dpc_knn(wrong, 1)
    for clusters in (0, 9):
        with pytest.raises(ValueError, match="num_clusters"):
            dpc_knn(x, clusters)
    with pytest.raises(ValueError, match="k must be"):
        dpc_knn(x, 2, k=0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 70),
    channels=st.sampled_from([1, 3, 8, 17, 320]),
    k=st.integers(1, 9),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_ties_in_random_shapes(tokens: int, channels: int, k: int, share: float, seed: int) -> None:
    x = torch.randint(-1, 2, (2, tokens, channels), generator=generator(seed)).float()
    clusters = max(1, int(share * tokens))
    expected = dpc_knn(x.double(), clusters, k, backend="reference")
    for backend in ("torch", "native"):
        if backend != "native" or native.available():
            for ours, theirs in zip(dpc_knn(x, clusters, k, backend=backend), expected, strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [40, 600])
def test_padding_changes_nothing(backend: str, tokens: int) -> None:
    real = tokens - 13
    x = torch.randn(2, tokens, 24, generator=generator())
    mask = torch.zeros(2, tokens, dtype=torch.bool)
    places = torch.stack([torch.randperm(tokens, generator=generator(i))[:real].sort()[0] for i in range(2)])
    mask.scatter_(1, places, True)
    alone = dpc_knn(x[mask].view(2, real, 24), 9, backend=backend)
    for filler in (0.0, 1e4, float("nan")):
        centres, assign = dpc_knn(x.masked_fill(~mask[:, :, None], filler), 9, mask=mask, backend=backend)
        assert torch.equal(centres, places.gather(1, alone[0]))
        assert torch.equal(assign[mask].view(2, real), alone[1])
        assert not assign[~mask].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_real_tokens_than_clusters(backend: str) -> None:
    x = torch.randn(3, 8, 4, generator=generator())
    mask = torch.tensor([[0, 0, 1, 0, 1, 0, 0, 1], [0] * 8, [1] * 8]).bool()
    centres, assign = dpc_knn(x, 5, mask=mask, backend=backend)
    assert centres[0].tolist() == [0, 1, 2, 4, 7]  # three tokens, and the first two of the padding
    assert assign[0].tolist() == [0, 0, 2, 0, 3, 0, 0, 4]
    assert centres[1].tolist() == [0, 1, 2, 3, 4] and not assign[1].any()
    assert torch.equal(assign[2], dpc_knn(x[2:], 5, backend=backend)[1][0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_are_clustered_alone(backend: str) -> None:
    x = torch.randn(2, 50, 8, generator=generator())
    mask = torch.rand(2, 50, generator=generator()) < 0.8
    parts = torch.randint(0, 4, (50,), generator=generator(1))
    parts[parts == 2] = 3  # a part without tokens
    for some_mask in (None, mask):
        centres, assign = dpc_knn(x, 13, mask=some_mask, parts=parts, backend=backend)
        first = 0
        for part, count in enumerate(apportion(torch.bincount(parts).tolist(), 13)):
            tokens = (parts == part).nonzero()[:, 0]
            if len(tokens) == 0:
                assert count == 0
                continue
            part_mask = None if some_mask is None else some_mask[:, tokens]
            part_centres, part_assign = dpc_knn(x[:, tokens], count, mask=part_mask, backend=backend)
            assert torch.equal(centres[:, first : first + count], tokens[part_centres])
            real = torch.ones_like(part_assign, dtype=torch.bool) if part_mask is None else part_mask
            assert torch.equal(assign[:, tokens][real], (part_assign + first)[real])
            first += count
        assert first == 13


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.floats(0, 1))
def test_clusters_are_apportioned_to_parts(sizes: list[int], share: float) -> None:
    total, occupied = sum(sizes), sum(size > 0 for size in sizes)
    if total == 0:
        return
    clusters = max(occupied, round(share * total))
    counts = apportion(sizes, clusters)
    assert sum(counts) == clusters
    assert all((1 <= count <= size) if size else count == 0 for count, size in zip(counts, sizes, strict=True))
    if all(clusters * size >= total for size in sizes if size):
        assert all(abs(count - clusters * size / total) < 1 for count, size in zip(counts, sizes, strict=True))


def test_apportioning_of_known_cases() -> None:
    assert apportion([196] * 16, 784) == [49] * 16
    assert apportion([3, 3, 3], 4) == [2, 1, 1]  # ties to the lower part
    assert apportion([100, 1, 1], 6) == [4, 1, 1]
    with pytest.raises(ValueError, match="3 parts need at least as many clusters"):
        apportion([2, 1, 0, 4], 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_and_parts_of_the_wrong_shape_or_dtype_raise(backend: str) -> None:
    x = torch.zeros(2, 8, 4)
    with pytest.raises(ValueError, match="mask must be"):
        dpc_knn(x, 2, mask=torch.ones(2, 8), backend=backend)
    with pytest.raises(ValueError, match="parts must be"):
        dpc_knn(x, 2, parts=torch.zeros(2, 8, dtype=torch.int64), backend=backend)

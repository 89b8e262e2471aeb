"""The backend "portable", which is used for export: against the references, and in an exported program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernels import TokenPlan, dpc_knn, map2token, merge_tokens, token2map, token_conv, upsample_tokens
from kernels.dpc_knn.portable_backend import known_parts, record_parts
from kernels.token_map import portable_backend as token_map_portable
from kernels.token_map.plan import Size

BATCH = 3
TOKENS = [1, 2, 4, 7, 60, 97]
# Grid and map: of equal size, of sizes that divide each other, of other sizes, and a map of one pixel.
SIZES: list[tuple[Size, Size]] = [
    ((8, 8), (8, 8)),
    ((8, 8), (4, 4)),
    ((8, 6), (2, 3)),
    ((7, 9), (4, 5)),
    ((25, 25), (13, 13)),
    ((5, 3), (1, 1)),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def lattice(tokens: int) -> Tensor:
    """Small integers: every distance is exact in float32, most occur many times, and tokens have copies."""
    return torch.randint(-2, 3, (BATCH, tokens, 3), generator=generator(tokens)).float()


def some_mask(tokens: int) -> Tensor:
    """A mask that keeps all tokens of the first image, one of the second, and about half of the third."""
    mask = torch.rand(BATCH, tokens, generator=generator(1)) < 0.5
    mask[0] = True
    mask[1] = torch.arange(tokens) == tokens // 2
    return mask


def assert_same_clusters(x: Tensor, clusters: int, *, k: int = 5, **options: Tensor) -> None:
    result = dpc_knn(x, clusters, k, **options, backend="portable")
    expected = dpc_knn(x, clusters, k, **options, backend="reference")
    for a, b in zip(result, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("features", ["random", "lattice", "constant"])
def test_clusters(tokens: int, features: str) -> None:
    x = {
        "random": random(BATCH, tokens, 6),
        "lattice": lattice(tokens),
        "constant": torch.full((BATCH, tokens, 4), 0.37),
    }[features]
    parts = torch.randint(0, 3, (tokens,), generator=generator(2))
    for clusters in {1, (tokens + 3) // 4, tokens}:
        for k in (1, 5, tokens + 1):
            assert_same_clusters(x, clusters, k=k)
            assert_same_clusters(x, clusters, k=k, mask=some_mask(tokens))
        if clusters >= len(parts.unique()):
            assert_same_clusters(x, clusters, parts=parts)
            assert_same_clusters(x, clusters, parts=parts, mask=some_mask(tokens))


def test_an_image_without_tokens() -> None:
    mask = torch.ones(BATCH, 20, dtype=torch.bool)
    mask[1] = False
    assert_same_clusters(random(BATCH, 20, 4), 5, mask=mask)


@pytest.mark.parametrize("tokens", [192, 400])
def test_float32_stays_near_float64(tokens: int) -> None:
    # Far from the origin, where |a|^2 - 2ab + |b|^2 loses its digits.
    x = (random(2, tokens, 64) + 30).float()
    expected = dpc_knn(x.double(), tokens // 4, backend="reference")[0]
    centres = dpc_knn(x, tokens // 4, backend="portable")[0]
    shared = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(centres, expected))
    assert shared >= 0.99 * expected.numel()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_indices_stay_in_range(bad: float) -> None:
    x = random(BATCH, 60, 4).float()
    expected = dpc_knn(x[2:], 15, backend="portable")[1][0]
    x[0, 7] = bad
    x[1] = bad
    centres, assign = dpc_knn(x, 15, backend="portable")
    assert centres.min() >= 0 and centres.max() < 60
    assert assign.min() >= 0 and assign.max() < 15
    assert torch.equal(assign[2], expected)


def test_repeated_runs_are_identical() -> None:
    x = random(2, 192, 24).float()
    first = dpc_knn(x, 48, backend="portable")
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, dpc_knn(x.clone(), 48, backend="portable")))


def assert_same(function: Callable[..., Any], leaves: tuple[Tensor, ...]) -> None:
    """Values and gradients agree with those of the reference."""
    results = []
    for backend in ("portable", "reference"):
        copies = [leaf.clone().requires_grad_() for leaf in leaves]
        outputs = function(*copies, backend=backend)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((y * random(*y.shape, seed=1)).sum() for y in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, copies)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_merging() -> None:
    assign = torch.randint(0, 7, (2, 30), generator=generator())
    assert_same(
        lambda x, p, backend: merge_tokens(x, p, assign, 9, backend=backend), (random(2, 30, 5), random(2, 30, 1))
    )


@pytest.mark.parametrize("products_per_read", [0, 10**9], ids=["gather", "product"])
@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_token_maps(grid: Size, size: Size, products_per_read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_map_portable, "_PRODUCTS_PER_READ", products_per_read)
    cells = grid[0] * grid[1]
    token_of_cell = torch.randint(0, 13, (BATCH, cells), generator=generator())
    coarse = TokenPlan.build(token_of_cell % 4, 4, grid, size)
    for plan in (TokenPlan.build(token_of_cell, 13, grid, size), TokenPlan.of_grid(BATCH, grid).at(size)):
        tokens = random(BATCH, plan.num_tokens, 5)
        assert_same(lambda x, backend, plan=plan: token2map(x, plan, backend=backend), (tokens,))
        assert_same(lambda m, backend, plan=plan: map2token(m, plan, backend=backend), (random(BATCH, 5, *size),))
        assert_same(
            lambda x, w, backend, plan=plan: upsample_tokens(x, coarse, plan, w, backend=backend),
            (random(BATCH, 4, 5), random(BATCH, cells).abs()),
        )
        assert_same(
            lambda x, w, b, s, backend, plan=plan: token_conv(x, plan, w, b, s, gelu=True, backend=backend),
            (tokens, random(5, 1, 3, 3), random(5), random(5)),
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    plan = TokenPlan.build(torch.randint(0, 13, (BATCH, 64), generator=generator()), 13, (8, 8), (4, 4))
    x, m = random(BATCH, 13, 5).to(dtype), random(BATCH, 5, 4, 4).to(dtype)
    eps = torch.finfo(dtype).eps
    for function, data in ((token2map, x), (map2token, m)):
        fast = function(data, plan, backend="portable")
        assert fast.dtype == dtype
        expected = function(data.double(), plan, backend="reference")
        torch.testing.assert_close(fast.double(), expected, rtol=2 * eps, atol=2 * eps)


class AllOperations(nn.Module):
    """A network of all operations except `token_conv`, for export."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        part = torch.arange(64, device=x.device) * self.parts // 64 if self.parts > 1 else None
        centres, assign = dpc_knn(x, 16, parts=part, backend="portable")
        merged, share = merge_tokens(x, x[:, :, :1], assign, 16, backend="portable")
        fine = TokenPlan.of_grid(x.shape[0], (8, 8))
        plan = TokenPlan.build(assign, 16, (8, 8), (4, 4))
        m = token2map(merged, plan, backend="portable")
        up = upsample_tokens(map2token(m, plan, backend="portable"), plan, fine, share[:, :, 0], backend="portable")
        return centres, assign, up


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 3])
def test_an_exported_program_has_standard_operators_and_any_batch_size(parts: int) -> None:
    network, x = AllOperations(parts), random(3, 64, 6).float()
    with record_parts() as recorded:
        expected = network(x)
    assert len(recorded) == (parts > 1)
    with known_parts(recorded):
        program = torch.export.export(network, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    program = program.run_decompositions()
    operators = {n.target for n in program.graph.nodes if n.op == "call_function"}
    assert {op.namespace for op in operators if isinstance(op, torch._ops.OpOverload)} <= {"aten"}
    for batch in (1, 3):
        for a, b in zip(program.module()(x[:batch]), expected, strict=True):
            torch.testing.assert_close(a, b[:batch])

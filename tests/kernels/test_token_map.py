"""Conversion between tokens and maps, and up-sampling, against their specification, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import TokenPlan, map2token, token2map, upsample_tokens
from kernels.token_map.plan import Size

BATCH = 3
# Grid and map: of equal size, of sizes that divide each other, of other sizes, and a map of one pixel.
SIZES: list[tuple[Size, Size]] = [
    ((8, 8), (8, 8)),
    ((8, 8), (4, 4)),
    ((8, 6), (2, 3)),
    ((7, 9), (4, 5)),
    ((25, 25), (13, 13)),
    ((5, 3), (1, 1)),
]


def plans(grid: Size, size: Size, tokens: int = 13) -> list[TokenPlan]:
    """A plan for random tokens, and one for tokens that are the grid cells."""
    g = torch.Generator().manual_seed(0)
    token_of_cell = torch.randint(0, tokens, (BATCH, grid[0] * grid[1]), generator=g)
    return [TokenPlan.build(token_of_cell, tokens, grid, size), TokenPlan.of_grid(BATCH, grid).at(size)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> None:
    """The backends "torch" and "reference" agree in values and gradients."""
    results = []
    for backend in ("torch", "reference"):
        copies = [leaf.clone().requires_grad_() for leaf in leaves]
        y = function(*copies, backend=backend)
        grads = torch.autograd.grad(y, copies, random(*y.shape, seed=1))
        results.append([y, *grads])
    for fast, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_values_and_gradients(grid: Size, size: Size) -> None:
    for plan in plans(grid, size):
        x = random(BATCH, plan.num_tokens, 5)
        assert_same(lambda x, backend, plan=plan: token2map(x, plan, backend=backend), (x,))
        m = random(BATCH, 5, *size)
        assert_same(lambda m, backend, plan=plan: map2token(m, plan, backend=backend), (m,))
        coarse, weight = plans(grid, size, tokens=4)[0], random(BATCH, grid[0] * grid[1]).abs()
        assert_same(
            lambda x, w, backend, plan=plan, coarse=coarse: upsample_tokens(x, coarse, plan, w, backend=backend),
            (random(BATCH, 4, 5), weight),
        )


def test_gradcheck() -> None:
    for plan in plans((4, 4), (2, 2), tokens=5):
        x = random(BATCH, plan.num_tokens, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, plan=plan: token2map(x, plan, backend="torch"), x)
        m = random(BATCH, 2, 2, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda m, plan=plan: map2token(m, plan, backend="torch"), m)


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
def test_by_hand(backend: str) -> None:
    # Tokens of the cells:  0 0   In the map of 1x2 pixels, each column of cells is one pixel.
    #                       1 0
    plan = TokenPlan.build(torch.tensor([[0, 0, 1, 0]]), 2, (2, 2), (1, 2))
    x = torch.tensor([[[2.0], [6.0]]], dtype=torch.float64)
    expected = torch.tensor([8 / (2 + 1e-6), 4 / (2 + 1e-6)], dtype=torch.float64)
    torch.testing.assert_close(token2map(x, plan, backend=backend).flatten(), expected, rtol=1e-14, atol=0)
    m = torch.tensor([[[[3.0, 9.0]]]], dtype=torch.float64)
    expected = torch.tensor([21 / (3 + 1e-6), 3 / (1 + 1e-6)], dtype=torch.float64)
    torch.testing.assert_close(map2token(m, plan, backend=backend).flatten(), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
def test_grid_on_its_own_map_is_a_reshape(backend: str) -> None:
    plan = TokenPlan.of_grid(BATCH, (5, 7))
    x = random(BATCH, 35, 4)
    m = token2map(x, plan, backend=backend)
    assert torch.equal(m, x.view(BATCH, 5, 7, 4).permute(0, 3, 1, 2))
    assert torch.equal(map2token(m, plan, backend=backend), x)


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
def test_upsampling_copies_to_the_tokens_that_were_merged(backend: str) -> None:
    fine = plans((6, 6), (3, 3), tokens=9)[0]
    parent = torch.randint(0, 4, (BATCH, 9), generator=torch.Generator().manual_seed(1))
    coarse = TokenPlan.build(parent.gather(1, fine.token_of_cell), 4, (6, 6), (2, 2))
    x = random(BATCH, 4, 5)
    copied = upsample_tokens(x, coarse, fine, torch.ones(BATCH, 36), backend=backend)
    owned = torch.zeros(BATCH, 9).scatter_(1, fine.token_of_cell, 1.0)[:, :, None]  # some tokens own no cell
    expected = x.gather(1, parent[:, :, None].expand(-1, -1, 5)) * owned
    torch.testing.assert_close(copied, expected, rtol=2e-6, atol=0)


def test_cells_are_mapped_to_pixels_by_rounding_down() -> None:
    plan = TokenPlan.of_grid(1, (5, 3)).at((3, 2))
    rows = plan.pixel_of_cell.view(5, 3) // 2
    columns = plan.pixel_of_cell.view(5, 3) % 2
    assert rows[:, 0].tolist() == [0, 0, 1, 1, 2]
    assert columns[0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    for plan in plans((24, 24), (12, 12)):
        x = random(BATCH, plan.num_tokens, 5).to(dtype)
        m = random(BATCH, 5, 12, 12).to(dtype)
        eps = torch.finfo(dtype).eps
        for function, data in ((token2map, x), (map2token, m)):
            fast = function(data, plan, backend="torch")
            assert fast.dtype == dtype
            expected = function(data.double(), plan, backend="reference")
            torch.testing.assert_close(fast.double(), expected, rtol=2 * eps, atol=2 * eps)


def test_non_contiguous_input() -> None:
    plan = plans((8, 8), (4, 4))[0]
    x = random(BATCH, 5, plan.num_tokens)
    torch.testing.assert_close(token2map(x.mT, plan), token2map(x.mT.contiguous(), plan), rtol=0, atol=1e-15)
    m = random(BATCH, 5, 4, 4)
    channels_last = m.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(map2token(m, plan), map2token(channels_last, plan), rtol=0, atol=1e-15)


def test_wrong_shapes_raise() -> None:
    plan = plans((8, 8), (4, 4))[0]
    with pytest.raises(ValueError, match=r"N=13.*\(3, 12, 5\)"):
        token2map(torch.zeros(3, 12, 5), plan)
    with pytest.raises(ValueError, match="H=4, W=4"):
        map2token(torch.zeros(3, 5, 8, 8), plan)
    with pytest.raises(ValueError, match="same batch and grid"):
        upsample_tokens(torch.zeros(3, 13, 5), plan, TokenPlan.of_grid(3, (4, 4)), torch.ones(3, 16))
    with pytest.raises(ValueError, match="cell_weight"):
        upsample_tokens(torch.zeros(3, 13, 5), plan, plan, torch.ones(3, 16))
    with pytest.raises(ValueError, match=r"\(B, 64\)"):
        TokenPlan.build(torch.zeros(3, 60, dtype=torch.int64), 4, (8, 8), (4, 4))
    with pytest.raises(ValueError, match="map_size must be from 1x1 to the grid size 8x8, but it is 9x4"):
        TokenPlan.build(torch.zeros(3, 64, dtype=torch.int64), 4, (8, 8), (9, 4))

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import TokenPlan, native, token_conv

BACKENDS = ["torch", "native"]


def plan_of(batch: int, grid: tuple[int, int], size: tuple[int, int], tokens: int, seed: int = 0) -> TokenPlan:
    """Arbitrary tokens, some of them without cells; with `tokens` 0 those that are the grid."""
    if tokens == 0:
        return TokenPlan.of_grid(batch, grid)
    g = torch.Generator().manual_seed(seed)
    return TokenPlan.build(torch.randint(0, tokens, (batch, grid[0] * grid[1]), generator=g), tokens, grid, size)


def leaves_of(plan: TokenPlan, channels: int, skip: bool = True, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(plan.batch, plan.num_tokens, channels), (channels, 1, 3, 3), (channels,)] + [(channels,)] * skip
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def value_and_gradients(
    plan: TokenPlan, leaves: list[Tensor], backend: str, gelu: bool, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    x, *parameters = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    y = token_conv(x, plan, *parameters, gelu=gelu, backend=backend)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *parameters], cotangent)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    divisor=st.integers(1, 4),
    tokens=st.integers(0, 20),
    channels=st.sampled_from([1, 5, 16, 33]),
    gelu=st.booleans(),
    skip=st.booleans(),
)
def test_against_the_reference(
    rows: int, columns: int, divisor: int, tokens: int, channels: int, gelu: bool, skip: bool
) -> None:
    plan = plan_of(2, (rows, columns), (-(-rows // divisor), -(-columns // divisor)), tokens)
    leaves = leaves_of(plan, channels, skip)
    expected = value_and_gradients(plan, leaves, "reference", gelu)
    for ours, theirs in zip(value_and_gradients(plan, leaves, "torch", gelu), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    if native.available():
        for ours, theirs in zip(
            value_and_gradients(plan, leaves, "native", gelu, torch.float32), expected, strict=True
        ):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    # Two tokens on a map of 1x2 pixels that are theirs; taps left, middle and right of the middle row.
    plan = TokenPlan.build(torch.tensor([[0, 1]]), 2, (1, 2), (1, 2))
    x = torch.tensor([[[2.0], [5.0]]], dtype=torch.float64)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1] = torch.tensor([10.0, 100.0, 1000.0])
    bias, skip = torch.tensor([[0.5], [7.0]], dtype=torch.float64).unbind()
    y = token_conv(x, plan, weight, bias, skip).flatten().tolist()
    assert y == pytest.approx([2 * 100 + 5 * 1000 + 0.5 + 14, 2 * 10 + 5 * 100 + 0.5 + 35], rel=1e-5)


@pytest.mark.parametrize("tokens", [0, 7])
def test_gradcheck(tokens: int) -> None:
    plan = plan_of(2, (3, 4), (2, 2), tokens)
    leaves = [leaf.requires_grad_() for leaf in leaves_of(plan, 2)]
    assert torch.autograd.gradcheck(lambda x, *p: token_conv(x, plan, *p, gelu=True, backend="torch"), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 30])
def test_an_image_does_not_depend_on_its_batch(backend: str, tokens: int) -> None:
    plan = plan_of(4, (12, 12), (6, 6), tokens)
    leaves = leaves_of(plan, 40)
    together = value_and_gradients(plan, leaves, backend, True, torch.float32)[0]
    alone = TokenPlan.of_grid(1, (12, 12)) if tokens == 0 else TokenPlan.build(
        plan.token_of_cell[2:3], tokens, (12, 12), (6, 6)
    )  # fmt: skip
    own = value_and_gradients(alone, [leaves[0][2:3], *leaves[1:]], backend, True, torch.float32)[0]
    if backend == "native":
        assert torch.equal(own[0], together[2])
    else:  # PyTorch's own convolution promises no more
        torch.testing.assert_close(own[0], together[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 30])
def test_repeated_runs_are_identical(backend: str, tokens: int) -> None:
    plan = plan_of(3, (12, 12), (6, 6), tokens)
    leaves = leaves_of(plan, 40)
    first = value_and_gradients(plan, leaves, backend, True, torch.float32)
    for _ in range(20):
        for a, b in zip(first, value_and_gradients(plan, leaves, backend, True, torch.float32), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 13])
def test_parameters_that_are_views(tokens: int, backend: str) -> None:
    plan = plan_of(2, (8, 8), (4, 4), tokens)
    x, weight, bias, skip = (leaf.float() for leaf in leaves_of(plan, 16))
    views = [torch.stack([t, t], t.ndim)[..., 0] for t in (weight, bias, skip)]
    assert not any(view.is_contiguous() for view in views)
    expected = token_conv(x, plan, weight, bias, skip, backend=backend)
    assert torch.equal(token_conv(x, plan, *views, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_plans_whose_token_of_cell_is_a_view(backend: str) -> None:
    tokens = plan_of(2, (8, 8), (4, 4), 13).token_of_cell
    transposed = TokenPlan.build(tokens.T.contiguous().T, 13, (8, 8), (4, 4))
    grid = TokenPlan.of_grid(2, (8, 8)).at((5, 3))  # the same row for all images
    for plan in (transposed, grid):
        assert not plan.token_of_cell.is_contiguous()
        leaves = leaves_of(plan, 16)
        expected = value_and_gradients(plan, leaves, "reference", gelu=True)
        results = value_and_gradients(plan, leaves, backend, gelu=True, dtype=torch.float32)
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    # Every token has cells: in float16 the plain 0 / (0 + 1e-6) is not 0.
    plan = TokenPlan.build((torch.arange(144) * 7 % 30).expand(2, -1), 30, (12, 12), (6, 6))
    leaves = [leaf.to(dtype).double() for leaf in leaves_of(plan, 16)]
    exact = value_and_gradients(plan, leaves, "reference", True)
    ours = value_and_gradients(plan, leaves, "torch", True, dtype)
    plain = value_and_gradients(plan, leaves, "reference", True, dtype)
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert a.dtype == dtype
        assert (a.double() - c).norm() <= 2 * (b.double() - c).norm()


def test_layout_and_parameters_of_another_dtype() -> None:
    plan = plan_of(2, (8, 8), (4, 4), 13)
    x, *parameters = [leaf.float() for leaf in leaves_of(plan, 16)]
    expected = token_conv(x, plan, *parameters)
    assert torch.equal(token_conv(x.mT.contiguous().mT, plan, *parameters), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = token_conv(F.linear(x, torch.eye(16)), plan, *parameters)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.1)


def test_wrong_arguments() -> None:
    plan = plan_of(2, (8, 8), (4, 4), 13)
    x, weight, bias, skip = leaves_of(plan, 6)
    with pytest.raises(ValueError, match="N=13"):
        token_conv(x[:, 1:], plan, weight, bias, skip)
    with pytest.raises(ValueError, match="expected weight"):
        token_conv(x, plan, weight[:, :, 1:], bias, skip)
    with pytest.raises(ValueError, match="skip"):
        token_conv(x, plan, weight, bias, skip[1:])

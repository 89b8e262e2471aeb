"""Token convolution against its specification, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import TokenPlan, native, token_conv
from kernels.token_map.plan import Size

BACKENDS = ["torch", "native"]


def random_plan(batch: int, grid_size: Size, map_size: Size, tokens: int) -> TokenPlan:
    """Plan for random tokens, some of them without cells; with `tokens` 0, for tokens that are the grid cells."""
    if tokens == 0:
        return TokenPlan.of_grid(batch, grid_size)
    g = torch.Generator().manual_seed(0)
    token_of_cell = torch.randint(0, tokens, (batch, grid_size[0] * grid_size[1]), generator=g)
    return TokenPlan.build(token_of_cell, tokens, grid_size, map_size)


def random_inputs(plan: TokenPlan, channels: int, skip: bool = True) -> list[Tensor]:
    """x, weight, bias and, if wanted, skip."""
    g = torch.Generator().manual_seed(0)
    shapes = [(plan.batch, plan.num_tokens, channels), (channels, 1, 3, 3), (channels,)] + [(channels,)] * skip
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def value_and_gradients(
    plan: TokenPlan, leaves: list[Tensor], *, backend: str, gelu: bool = True, dtype: torch.dtype = torch.float64
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
    map_size = (-(-rows // divisor), -(-columns // divisor))
    plan = random_plan(2, (rows, columns), map_size, tokens)
    leaves = random_inputs(plan, channels, skip=skip)
    expected = value_and_gradients(plan, leaves, backend="reference", gelu=gelu)
    results = value_and_gradients(plan, leaves, backend="torch", gelu=gelu)
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    if native.available():
        results = value_and_gradients(plan, leaves, backend="native", gelu=gelu, dtype=torch.float32)
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    # Two tokens, each with one of the 1x2 pixels of the map. Only the three taps of the middle row are not 0.
    plan = TokenPlan.build(torch.tensor([[0, 1]]), 2, (1, 2), (1, 2))
    x = torch.tensor([[[2.0], [5.0]]], dtype=torch.float64)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1] = torch.tensor([10.0, 100.0, 1000.0])
    bias, skip = torch.tensor([[0.5], [7.0]], dtype=torch.float64).unbind()
    y = token_conv(x, plan, weight, bias, skip).flatten().tolist()
    assert y == pytest.approx([2 * 100 + 5 * 1000 + 0.5 + 14, 2 * 10 + 5 * 100 + 0.5 + 35], rel=1e-5)


@pytest.mark.parametrize("tokens", [0, 7])
def test_gradcheck(tokens: int) -> None:
    plan = random_plan(2, (3, 4), (2, 2), tokens)
    leaves = [leaf.requires_grad_() for leaf in random_inputs(plan, 2)]
    assert torch.autograd.gradcheck(lambda x, *p: token_conv(x, plan, *p, gelu=True, backend="torch"), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 30])
def test_an_image_does_not_depend_on_its_batch(backend: str, tokens: int) -> None:
    plan = random_plan(4, (12, 12), (6, 6), tokens)
    leaves = random_inputs(plan, 40)
    together = value_and_gradients(plan, leaves, backend=backend, dtype=torch.float32)[0]
    alone = TokenPlan.of_grid(1, (12, 12)) if tokens == 0 else TokenPlan.build(
        plan.token_of_cell[2:3], tokens, (12, 12), (6, 6)
    )  # fmt: skip
    result = value_and_gradients(alone, [leaves[0][2:3], *leaves[1:]], backend=backend, dtype=torch.float32)[0]
    if backend == "native":
        assert torch.equal(result[0], together[2])
    else:  # PyTorch's own convolution guarantees no more
        torch.testing.assert_close(result[0], together[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 30])
def test_repeated_runs_are_identical(backend: str, tokens: int) -> None:
    plan = random_plan(3, (12, 12), (6, 6), tokens)
    leaves = random_inputs(plan, 40)
    first = value_and_gradients(plan, leaves, backend=backend, dtype=torch.float32)
    for _ in range(20):
        again = value_and_gradients(plan, leaves, backend=backend, dtype=torch.float32)
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [0, 13])
def test_parameters_that_are_views(tokens: int, backend: str) -> None:
    plan = random_plan(2, (8, 8), (4, 4), tokens)
    x, weight, bias, skip = (leaf.float() for leaf in random_inputs(plan, 16))
    views = [torch.stack([t, t], t.ndim)[..., 0] for t in (weight, bias, skip)]
    assert not any(view.is_contiguous() for view in views)
    expected = token_conv(x, plan, weight, bias, skip, backend=backend)
    assert torch.equal(token_conv(x, plan, *views, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_plans_whose_token_of_cell_is_a_view(backend: str) -> None:
    token_of_cell = random_plan(2, (8, 8), (4, 4), tokens=13).token_of_cell
    transposed = TokenPlan.build(token_of_cell.T.contiguous().T, 13, (8, 8), (4, 4))
    grid = TokenPlan.of_grid(2, (8, 8)).at((5, 3))  # one row, expanded to both images
    for plan in (transposed, grid):
        assert not plan.token_of_cell.is_contiguous()
        leaves = random_inputs(plan, 16)
        expected = value_and_gradients(plan, leaves, backend="reference")
        results = value_and_gradients(plan, leaves, backend=backend, dtype=torch.float32)
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    # Every token has cells. For others, the reference's gradient in float16 is NaN, because 1 / 1e-6 overflows.
    plan = TokenPlan.build((torch.arange(144) * 7 % 30).expand(2, -1), 30, (12, 12), (6, 6))
    leaves = [leaf.to(dtype).double() for leaf in random_inputs(plan, 16)]
    exact = value_and_gradients(plan, leaves, backend="reference")
    ours = value_and_gradients(plan, leaves, backend="torch", dtype=dtype)
    plain = value_and_gradients(plan, leaves, backend="reference", dtype=dtype)
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert a.dtype == dtype
        assert (a.double() - c).norm() <= 2 * (b.double() - c).norm()


def test_features_of_another_layout_or_dtype() -> None:
    plan = random_plan(2, (8, 8), (4, 4), tokens=13)
    x, *parameters = [leaf.float() for leaf in random_inputs(plan, 16)]
    expected = token_conv(x, plan, *parameters)
    assert torch.equal(token_conv(x.mT.contiguous().mT, plan, *parameters), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = token_conv(F.linear(x, torch.eye(16)), plan, *parameters)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.1)


def test_wrong_shapes_raise() -> None:
    plan = random_plan(2, (8, 8), (4, 4), tokens=13)
    x, weight, bias, skip = random_inputs(plan, 6)
    with pytest.raises(ValueError, match="N=13"):
        token_conv(x[:, 1:], plan, weight, bias, skip)
    with pytest.raises(ValueError, match="expected weight"):
        token_conv(x, plan, weight[:, :, 1:], bias, skip)
    with pytest.raises(ValueError, match="skip"):
        token_conv(x, plan, weight, bias, skip[1:])


@pytest.mark.skipif(not native.available(), reason="C++ only")
@pytest.mark.parametrize("tokens", [0, 20])
@pytest.mark.parametrize("skip", [False, True])
def test_the_result_takes_the_place_of_an_input_that_is_not_used_any_more(tokens: int, skip: bool) -> None:
    plan = random_plan(2, (7, 9), (7, 9), tokens)
    x, *parameters = [leaf.float() for leaf in random_inputs(plan, 70, skip=skip)]
    expected = token_conv(x.clone(), plan, *parameters, gelu=True, backend="native")
    with torch.no_grad():
        y = token_conv(x, plan, *parameters, gelu=True, overwrite=True, backend="native")
    assert y is x
    assert torch.equal(y, expected)


@pytest.mark.parametrize("change", [Tensor.double, lambda x: x.mT.contiguous().mT, Tensor.requires_grad_])
def test_other_inputs_stay_as_they_are(change: Callable[[Tensor], Tensor]) -> None:
    plan = random_plan(2, (7, 9), (7, 9), 20)
    x, *parameters = [leaf.float() for leaf in random_inputs(plan, 70)]
    x = change(x)
    before = x.detach().clone()
    with torch.set_grad_enabled(x.requires_grad):
        y = token_conv(x, plan, *parameters, gelu=True, overwrite=True)
    assert y is not x
    assert torch.equal(x, before)
    assert y.requires_grad == x.requires_grad

"""Attention with a bias per key: both implementations against softmax written out in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import attention
from kernels.attention.op import _with_bias_channels

SHAPES = [(2, 5, 7, 16), (1, 1, 1, 8), (3, 40, 9, 64), (2, 3, 50, 13)]  # heads, queries, keys, channels


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v and key_bias for two images."""
    heads, queries, keys, channels = shape
    g = torch.Generator().manual_seed(0)
    shapes = [(2, heads, queries, channels), *[(2, heads, keys, channels)] * 2, (2, keys)]
    return [(2 * torch.randn(s, generator=g, dtype=torch.float64)).to(dtype) for s in shapes]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[3] ** 0.5 + bias[:, None, None, :]).softmax(3) @ v


def value_and_gradients(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = function(*leaves)
    g = torch.Generator().manual_seed(1)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.randn(y.shape, generator=g, dtype=torch.float64).to(y))]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape: tuple[int, int, int, int]) -> None:
    leaves = inputs(shape)
    expected = value_and_gradients(plain_attention, leaves)
    for a, b in zip(value_and_gradients(attention, leaves), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(attention(*leaves), expected[0], rtol=1e-11, atol=1e-12)  # without gradients
    q, k, v, _ = leaves
    torch.testing.assert_close(
        attention(q, k, v), plain_attention(q, k, v, torch.zeros(2, shape[2])), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_channels_as_on_gpus(shape: tuple[int, int, int, int]) -> None:
    leaves = inputs(shape)
    for a, b in zip(
        value_and_gradients(_with_bias_channels, leaves), value_and_gradients(plain_attention, leaves), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # the bias has the precision of float32


def test_bias_channels_keep_the_digits_of_a_large_bias() -> None:
    q, k, v, bias = inputs((3, 40, 9, 64))
    bias = 40 * bias
    exact = plain_attention(q, k, v, bias)
    low = [t.bfloat16() for t in (q, k, v)]
    error = (_with_bias_channels(*low, bias.float()).double() - exact).norm()
    plain = (plain_attention(*low, bias.bfloat16()).double() - exact).norm()
    assert error < 0.5 * plain


@pytest.mark.parametrize("function", [attention, _with_bias_channels])
def test_excluded_keys_have_no_influence(function: Callable[..., Tensor]) -> None:
    q, k, v, bias = inputs((2, 5, 7, 16), torch.float32)
    bias[:, 4:] = -torch.inf
    y = function(q, k, v, bias)
    torch.testing.assert_close(y, function(q, k[:, :, :4], v[:, :, :4], bias[:, :4]), rtol=1e-5, atol=1e-6)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(attention, [t.requires_grad_() for t in inputs((2, 3, 4, 5))])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    leaves = [leaf.to(dtype) for leaf in inputs((3, 40, 9, 64))]
    exact = value_and_gradients(plain_attention, [leaf.double() for leaf in leaves])
    plain = value_and_gradients(plain_attention, leaves)
    for function in (attention, _with_bias_channels):
        for a, b, c in zip(value_and_gradients(function, leaves), plain, exact, strict=True):
            assert a.dtype == dtype
            assert (a.double() - c).norm() <= 2 * (b.double() - c).norm()


def test_repeated_runs_are_identical() -> None:
    leaves = inputs((3, 40, 9, 64), torch.float32)
    first = value_and_gradients(attention, leaves)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first, value_and_gradients(attention, leaves), strict=True))


def test_a_bias_of_the_wrong_shape_raises() -> None:
    q, k, v, bias = inputs((2, 5, 7, 16))
    with pytest.raises(ValueError, match=r"key_bias must be \(2, 7\)"):
        attention(q, k, v, bias[:, :5])

"""Merging of tokens against its specification, forward and backward."""

from __future__ import annotations

import pytest
import torch

from kernels import merge_tokens


def inputs(dtype: torch.dtype = torch.float64, tokens: int = 30) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, log_weight and assign for two images and 7 clusters."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, tokens, 5, generator=g).to(dtype)
    log_weight = torch.randn(2, tokens, 1, generator=g).to(dtype)
    return x, log_weight, torch.randint(0, 7, (2, tokens), generator=g)


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
def test_by_hand(backend: str) -> None:
    x = torch.tensor([[[1.0], [3.0], [10.0]]], dtype=torch.float64)
    log_weight = torch.tensor([[[0.0], [2.0], [-1.0]]], dtype=torch.float64).mul(torch.tensor(2.0).log())
    merged, share = merge_tokens(x, log_weight, torch.tensor([[0, 0, 2]]), 3, backend=backend)
    expected = torch.tensor([[[13 / (5 + 1e-6)], [0.0], [5 / (0.5 + 1e-6)]]], dtype=torch.float64)
    torch.testing.assert_close(merged, expected, rtol=1e-7, atol=0)
    expected = torch.tensor([[[1 / (5 + 1e-6)], [4 / (5 + 1e-6)], [0.5 / (0.5 + 1e-6)]]], dtype=torch.float64)
    torch.testing.assert_close(share, expected, rtol=1e-7, atol=0)


def test_values_and_gradients() -> None:
    x, log_weight, assign = inputs()
    results = []
    for backend in ("torch", "reference"):
        leaves = [x.clone().requires_grad_(), log_weight.clone().requires_grad_()]
        outputs = merge_tokens(*leaves, assign, 7, backend=backend)
        (outputs[0].sin().sum() + outputs[1].square().sum()).backward()
        results.append([*outputs, *(leaf.grad for leaf in leaves)])
    for fast, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-13)


def test_gradcheck() -> None:
    x, log_weight, assign = inputs(tokens=9)
    x, log_weight = x.requires_grad_(), log_weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: merge_tokens(*t, assign, 7, backend="torch"), (x, log_weight))


def test_layout_does_not_matter() -> None:
    x, log_weight, assign = inputs()
    strided = merge_tokens(x.mT.contiguous().mT, log_weight, assign.T.contiguous().T, 7)
    for a, b in zip(strided, merge_tokens(x, log_weight, assign, 7)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
def test_low_precision(backend: str) -> None:
    x, log_weight, assign = inputs(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        merged, share = merge_tokens(x, log_weight, assign, 7, backend=backend)
    assert (merged.dtype, share.dtype) == (torch.bfloat16, torch.float32)
    expected = merge_tokens(x.double(), log_weight.double(), assign, 7)[0]
    torch.testing.assert_close(merged.double(), expected, rtol=2**-8, atol=1e-6)


def test_wrong_shapes_raise() -> None:
    x, log_weight, assign = inputs()
    with pytest.raises(ValueError, match="log_weight"):
        merge_tokens(x, log_weight[:, :, 0], assign, 7)
    with pytest.raises(ValueError, match="assign"):
        merge_tokens(x, log_weight, assign[:1], 7)

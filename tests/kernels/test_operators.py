"""The registered operators: torch.library's own checks, and the functions with and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import TokenPlan, dpc_knn, map2token, merge_tokens, token2map, token_conv, upsample_tokens
from kernels.token_conv.op import plan_tensors

BACKENDS = ["torch", "native"]
OPS = torch.ops.tcformer


def random(*shape: int, grad: bool = True) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).requires_grad_(grad)


def random_plan(tokens: int = 13) -> TokenPlan:
    g = torch.Generator().manual_seed(0)
    return TokenPlan.build(torch.randint(0, tokens, (2, 64), generator=g), tokens, (8, 8), (4, 4))


def operators(backend: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of every operator."""
    plan, coarse = random_plan(), random_plan(tokens=4)
    assert plan.by_pixel and plan.by_token
    links, reverse = plan.by_pixel, plan.by_token
    assign = torch.randint(0, 5, (2, 13), generator=torch.Generator().manual_seed(0))
    pixels = plan.pixel_of_cell.expand(2, -1).contiguous()
    mask = torch.ones(2, 13, dtype=torch.bool)
    cells, link_tensors = plan_tensors(plan)
    coarse_cells = (coarse.token_of_cell, coarse.token_cells, coarse.token_offsets)
    fine_cells = (plan.token_of_cell, plan.token_cells, plan.token_offsets)
    conv = (random(13, 1, 3, 3)[:6], random(6), random(6))
    sums = (
        *(links.index, links.offsets, links.mean_weight),
        *(reverse.index, reverse.offsets, reverse.backward_weight),
    )
    return {
        "dpc_knn": (random(2, 13, 6, grad=False), 5, 3, mask, torch.arange(13) % 2, backend, False),
        "merge_tokens": (random(2, 13, 6), random(2, 13, 1), assign, 5, backend),
        "segment_sum": (random(2, 13, 6), *sums, backend),
        "sum_blocks": (random(2, 64, 6), [8, 8], [4, 4], 0.25),
        "repeat_blocks": (random(2, 16, 6), [8, 8], [4, 4], 0.25),
        "upsample_tokens": (random(2, 4, 6), random(2, 64), *coarse_cells, *fine_cells, backend),
        "token_conv": (random(2, 13, 6), *conv, cells, link_tensors, [4, 4], True, backend),
        "token_conv_": (random(2, 13, 6, grad=False), *(t.detach() for t in conv), cells, link_tensors, [4, 4], True),
        "sort_cells": (plan.token_of_cell, 13),
        "link_rows": (plan.token_of_cell, pixels, 13, 16),
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(operators("torch")))
def test_opcheck(name: str, backend: str) -> None:
    torch.library.opcheck(getattr(OPS, name).default, operators(backend)[name])


def test_every_operator_is_checked() -> None:
    registered = {
        name.removeprefix("tcformer::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("tcformer::")
    }
    assert {name.split(".")[0].removesuffix("_backward") for name in registered} == set(operators("torch"))


def functions() -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Every differentiable function, with its arguments."""
    plan, coarse = random_plan(), random_plan(tokens=4)
    assign = dpc_knn(random(2, 13, 6), 5)[1]
    return {
        "merge_tokens": (lambda x, w: merge_tokens(x, w, assign, 5)[0], (random(2, 13, 6), random(2, 13, 1))),
        "token2map": (lambda x: token2map(x, plan), (random(2, 13, 6),)),
        "map2token": (lambda m: map2token(m, plan), (random(2, 6, 4, 4),)),
        "upsample_tokens": (lambda x, w: upsample_tokens(x, coarse, plan, w), (random(2, 4, 6), random(2, 64))),
        "token_conv": (
            lambda x, *w: token_conv(x, plan, *w, gelu=True),
            (random(2, 13, 6), random(6, 1, 3, 3), random(6), random(6)),
        ),
    }


@pytest.mark.parametrize("name", list(functions()))
def test_values_do_not_depend_on_whether_gradients_are_recorded(name: str) -> None:
    function, leaves = functions()[name]
    expected = function(*leaves)
    assert expected.requires_grad
    with torch.no_grad():
        assert torch.equal(function(*leaves), expected)
    with torch.inference_mode():
        assert torch.equal(function(*leaves), expected)


@pytest.mark.parametrize("name", list(functions()))
def test_each_gradient_can_be_requested_alone(name: str) -> None:
    function, leaves = functions()[name]
    grads = torch.autograd.grad(function(*leaves).sin().sum(), leaves)
    for i, expected in enumerate(grads):
        copies = [leaf.detach().requires_grad_(i == j) for j, leaf in enumerate(leaves)]
        assert torch.equal(torch.autograd.grad(function(*copies).sin().sum(), copies[i])[0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_does_not_depend_on_its_batch(backend: str) -> None:
    g = torch.Generator().manual_seed(0)
    token_of_cell = torch.randint(0, 40, (5, 144), generator=g)
    x, weight = torch.randn(5, 40, 24, generator=g), torch.randn(5, 40, 1, generator=g)
    assign = torch.randint(0, 9, (5, 40), generator=g)

    def results(some: slice) -> list[Tensor]:
        plan = TokenPlan.build(token_of_cell[some], 40, (12, 12), (6, 6))
        m = token2map(x[some], plan, backend=backend)
        merged = merge_tokens(x[some], weight[some], assign[some], 9, backend=backend)
        return [m, map2token(m, plan, backend=backend), *merged]

    for whole, alone in zip(results(slice(0, 5)), results(slice(3, 4)), strict=True):
        assert torch.equal(whole[3], alone[0])


def test_tokens_out_of_range_raise() -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
        TokenPlan.build(torch.tensor([[0, 1, 2, 3]]), 3, (2, 2), (1, 1))
    with pytest.raises(ValueError, match=r"must be in \[0, 2\)"):
        merge_tokens(torch.zeros(1, 3, 2), torch.zeros(1, 3, 1), torch.tensor([[0, -1, 1]]), 2)


def test_padding_has_no_weight() -> None:
    x, log_weight, assign = torch.randn(1, 6, 3), torch.zeros(1, 6, 1), torch.tensor([[1, 0, 1, 0, 0, 0]])
    log_weight[:, 4:] = -torch.inf
    padded = merge_tokens(x, log_weight, assign, 2)
    alone = merge_tokens(x[:, :4], log_weight[:, :4], assign[:, :4], 2)
    assert torch.equal(padded[0], alone[0]) and torch.equal(padded[1][:, :4], alone[1])
    assert not padded[1][:, 4:].any()

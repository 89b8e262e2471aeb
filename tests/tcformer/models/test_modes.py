"""The network in the ways PyTorch can run one: compiled, checkpointed, copied, without gradients."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tcformer.models import create_model


def network(task: str = "imagenet") -> nn.Module:
    torch.manual_seed(0)
    return create_model("tcformer_nano", task).double()


def images() -> Tensor:
    torch.manual_seed(1)
    coarse = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    return F.interpolate(coarse, (64, 64), mode="bicubic") + 0.1 * torch.randn(2, 3, 64, 64, dtype=torch.float64)


def step(model: nn.Module, run=None) -> list[Tensor]:
    model.zero_grad()
    output = (model if run is None else run)(images())
    output.square().sum().backward()
    return [output.detach(), *(p.grad.clone() for p in model.parameters())]


def assert_close(ours: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_traced_in_one_graph(task: str) -> None:
    model = network(task)
    expected = step(model)
    assert_close(step(model, torch.compile(model, fullgraph=True, backend="aot_eager")), expected)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_in_one_graph() -> None:
    """By the default compiler, whose backward pass would take it two more minutes: see `test_traced_in_one_graph`."""
    model = network().eval()
    assert_close([torch.compile(model, fullgraph=True)(images())], [model(images())])


def test_checkpointed() -> None:
    model = network()
    expected = step(model)
    ours = step(model, lambda x: checkpoint(model, x, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_copied() -> None:
    model = network()
    step(model)
    assert all(torch.equal(a, b) for a, b in zip(step(deepcopy(model)), step(model), strict=True))


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_shapes_alone(task: str) -> None:
    with torch.device("meta"):
        model = create_model("tcformer", task)
    output = model(torch.empty(2, 3, 256, 192, device="meta"))
    assert output.shape == ((2, 1000) if task == "imagenet" else (2, 133, 64, 48))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context) -> None:
    model = network("wholebody")
    expected = model(images()).detach()
    with context():
        torch.testing.assert_close(model(images()), expected, rtol=1e-9, atol=1e-12)
    step(model)  # nothing of what was made without gradients is used again

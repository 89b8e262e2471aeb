"""Checkpoints in the layouts in which the authors publish theirs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tcformer
from tcformer.errors import UserError
from tcformer.models import Network, load_backbone, load_initial, save_model
from tests.tcformer.models.test_network import NANO


def network(task: str, seed: int, **options: int) -> Network:
    torch.manual_seed(seed)
    return tcformer.create_model(NANO, task, **options)


def published(model: Network) -> dict[str, Tensor]:
    """The model's weights under the published names: a classifier's backbone has no prefix."""
    classifier = model.config["task"] == "imagenet"
    return {name.removeprefix("backbone.") if classifier else name: t for name, t in model.state_dict().items()}


def same(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def layouts(weights: dict[str, Tensor]) -> dict[str, Any]:
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    arguments = argparse.Namespace(batch_size=128, data_path="/data", lr=1e-3)
    return {
        "alone": weights,
        "training": {"model": weights, "optimizer": optimizer, "epoch": 299, "args": arguments},
        "parallel": {"model": {f"module.{name}": tensor for name, tensor in weights.items()}, "args": arguments},
        "mmpose": {"meta": {"epoch": 210, "mmpose_version": "0.24.0"}, "state_dict": weights, "optimizer": optimizer},
    }


@pytest.mark.parametrize("layout", ["alone", "training", "parallel", "mmpose"])
@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_every_layout(task: str, layout: str, tmp_path: Path) -> None:
    options = {"num_classes": 4} if task == "imagenet" else {}
    source, target = network(task, 1, **options), network(task, 2, **options)
    content = layouts(published(source))[layout]
    torch.save(content, tmp_path / "checkpoint.pth")
    tcformer.load_released_weights(target, tmp_path / "checkpoint.pth")
    assert same(source, target)
    again = network(task, 3, **options)
    tcformer.load_released_weights(again, content)
    assert same(source, again)


def test_what_does_not_fit_is_listed() -> None:
    weights = published(network("imagenet", 1, num_classes=4))
    weights["extra"] = weights.pop("norm4.bias")
    model = network("imagenet", 2, num_classes=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        tcformer.load_released_weights(model, weights)
    for part in (
        "1 missing: backbone.norm4.bias",
        "1 unknown: backbone.extra",
        "2 of another shape: head.weight (4, 128) instead of (5, 128), head.bias (4,) instead of (5,)",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "nothing was copied"
    with pytest.raises(UserError, match=r"62 missing: .*keypoint_head\.final_layer\.bias, .*, \.\.\.; "):
        tcformer.load_released_weights(network("wholebody", 1), weights)


class Attack:
    """A pickle that makes a folder when it is read as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    model = network("imagenet", 1)
    torch.save({"model": published(model), "args": Attack(tmp_path / "attacked")}, tmp_path / "attack.pth")
    with pytest.raises(UserError, match="contains code") as caught:
        tcformer.load_released_weights(model, tmp_path / "attack.pth")
    assert "weights_only" not in str(caught.value), "torch's advice to execute the code is not passed on"
    assert not (tmp_path / "attacked").exists()
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="is damaged, is not a PyTorch checkpoint"):
        tcformer.load_released_weights(model, tmp_path / "text.pth")
    with pytest.raises(UserError, match=r"missing\.pth: no such file"):
        tcformer.load_released_weights(model, tmp_path / "missing.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"empty\.pth: contains no weights"):
        tcformer.load_released_weights(model, tmp_path / "empty.pth")


def test_a_training_starts_from_the_network_or_its_backbone(tmp_path: Path) -> None:
    source = network("imagenet", 1, num_classes=4)
    torch.save({"model": published(source)}, tmp_path / "released.pth")
    save_model(source, tmp_path / "ours.safetensors")
    for file in ("released.pth", "ours.safetensors"):
        classifier, other, pose = (
            network("imagenet", 2, num_classes=4),
            network("imagenet", 2, num_classes=7),
            network("wholebody", 2),
        )
        assert load_initial(classifier, tmp_path / file) == "network"
        assert same(source, classifier)
        assert load_initial(other, tmp_path / file) == load_initial(pose, tmp_path / file) == "backbone"
        fresh = network("wholebody", 3)
        load_backbone(fresh, tmp_path / file)
        for model in (other, pose, fresh):
            assert all(
                torch.equal(tensor, source.backbone.state_dict()[name])
                for name, tensor in model.backbone.state_dict().items()
            )

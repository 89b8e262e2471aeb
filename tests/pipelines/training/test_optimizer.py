"""Which parameters decay, their learning rates, and that AdamW gets them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tcformer
from pipelines.training.optimizer import build_optimizer, parameter_groups
from pipelines.training.schedule import learning_rate, scheduler
from tcformer.errors import UserError
from tcformer.models import layer_depths
from tests.pipelines.training.test_schedule import options


def names_of(model: nn.Module, group: dict) -> set[str]:
    identities = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in identities}


def test_norms_and_biases_do_not_decay_unless_asked() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, free = parameter_groups(model, options(weight_decay=0.05, decay_norms_and_biases=False))
    assert names_of(model, decayed) == {"0.weight", "2.weight"} and decayed["weight_decay"] == 0.05
    assert names_of(model, free) == {"0.bias", "1.weight", "1.bias", "2.bias"} and free["weight_decay"] == 0.0
    (everything,) = parameter_groups(model, options(weight_decay=0.05, decay_norms_and_biases=True))
    assert names_of(model, everything) == dict(model.named_parameters()).keys()


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = parameter_groups(model, options(decay_norms_and_biases=False))
    assert set().union(*(names_of(model, group) for group in groups)) == {"1.weight", "1.bias"}


def test_every_trainable_parameter_of_a_network_is_in_exactly_one_group() -> None:
    model = tcformer.create_model("tcformer_nano", task="wholebody")
    groups = parameter_groups(model, options(weight_decay=0.05, decay_norms_and_biases=False))
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def test_adamw_gets_the_groups_and_the_rate() -> None:
    optimizer = build_optimizer(nn.Linear(4, 2), options(lr=0.25, weight_decay=0.05, decay_norms_and_biases=False))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.25, 0.05), (0.25, 0.0)]


def rates_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: rates[id(parameter)] for name, parameter in model.named_parameters()}


def test_layer_decay_lowers_the_rate_of_each_layer_towards_the_input() -> None:
    model = tcformer.create_model("tcformer_nano", task="wholebody")
    blocks = [1, 1, 1, 1]
    assert [len(getattr(model.backbone, f"block{stage}")) for stage in (1, 2, 3, 4)] == blocks
    chosen = options(lr=0.4, layer_decay=0.5, schedule="cosine", warmup_steps=2, warmup_lr=0.1, final_lr=0.01)
    optimizer = build_optimizer(model, chosen)
    rate = scheduler(optimizer, chosen, steps=6, steps_per_epoch=2.0)
    distances = {
        "backbone.patch_embed1.": 5,
        **dict.fromkeys(("backbone.block1.", "backbone.norm1."), 4),
        **dict.fromkeys(("backbone.ctm1.", "backbone.block2.", "backbone.norm2."), 3),
        **dict.fromkeys(("backbone.ctm2.", "backbone.block3.", "backbone.norm3."), 2),
        **dict.fromkeys(("backbone.ctm3.", "backbone.block4.", "backbone.norm4."), 1),
        **dict.fromkeys(("neck.", "keypoint_head."), 0),
    }
    for step in range(6):
        highest = learning_rate(step, chosen, steps=6, steps_per_epoch=2.0)
        rates = rates_by_name(model, optimizer)
        for name, found in rates.items():
            (distance,) = [number for prefix, number in distances.items() if name.startswith(prefix)]
            assert found == pytest.approx(highest * 0.5**distance, rel=1e-12), (step, name)
        assert optimizer.param_groups[0]["lr"] == max(rates.values()), "what an engine reports"
        optimizer.step()
        rate.step()


def test_blocks_are_counted_through_the_stages() -> None:
    depths = layer_depths(tcformer.create_model("tcformer_light", task="imagenet"))
    numbers = tcformer.create_model("tcformer_light", task="imagenet").backbone.variant.depths
    expected = 0
    for stage, blocks in enumerate(numbers, 1):
        for block in range(blocks):
            expected += 1
            assert depths[f"backbone.block{stage}.{block}.norm1.weight"] == expected
        assert depths[f"backbone.norm{stage}.weight"] == expected
    assert depths["head.weight"] == expected + 1


def test_layer_decay_keeps_what_decays() -> None:
    model = tcformer.create_model("tcformer_nano", task="face")
    plain = parameter_groups(model, options(weight_decay=0.05, decay_norms_and_biases=False))
    layered = parameter_groups(model, options(weight_decay=0.05, decay_norms_and_biases=False, layer_decay=0.75))
    assert len(layered) > len(plain) == 2
    for decay in (0.05, 0.0):
        names = [
            set().union(*(names_of(model, group) for group in groups if group["weight_decay"] == decay))
            for groups in (plain, layered)
        ]
        assert names[0] == names[1] != set()


def test_timm_says_how_deep_its_layers_are() -> None:
    model = tcformer.create_model("timm/resnet18", task="wholebody")
    depths = layer_depths(model)
    assert depths.keys() == dict(model.named_parameters()).keys()
    assert depths["backbone.net.conv1.weight"] == depths["backbone.net.bn1.bias"] == 0
    assert depths["backbone.net.layer1.0.conv1.weight"] == 1
    assert depths["backbone.net.layer4.1.conv2.weight"] == 8
    assert {depth for name, depth in depths.items() if not name.startswith("backbone.")} == {9}


def test_a_backbone_without_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tcformer.create_model("timm/resnet18", task="imagenet")
    monkeypatch.delattr("timm.models.resnet.ResNet.group_matcher")
    with pytest.raises(UserError, match=r"layer_decay: timm does not divide timm/resnet18 into layers"):
        build_optimizer(model, options(layer_decay=0.75))
    build_optimizer(model, options())

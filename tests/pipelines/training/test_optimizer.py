"""Which parameters decay, and that AdamW gets them."""

from __future__ import annotations

import torch
from torch import nn

import tcformer
from pipelines.training.optimizer import build_optimizer, parameter_groups
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

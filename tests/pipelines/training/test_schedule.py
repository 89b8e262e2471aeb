"""The learning-rate schedule: its formula, and PyTorch's scheduler that follows it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipelines.params import Optimizer
from pipelines.training.schedule import learning_rate, scheduler


def options(**changes: Any) -> Optimizer:
    plain: dict[str, Any] = {
        "lr": 1.0,
        "layer_decay": None,
        "weight_decay": 0.0,
        "decay_norms_and_biases": True,
        "clip_norm": None,
        "warmup_steps": 0,
        "warmup_lr": 0.0,
        "schedule": "constant",
        "final_lr": 0.0,
        "milestones": (),
    }
    return Optimizer(**{**plain, **changes})


def rates(chosen: Optimizer, steps: int = 10, steps_per_epoch: float = 2.0) -> list[float]:
    return [learning_rate(step, chosen, steps=steps, steps_per_epoch=steps_per_epoch) for step in range(steps)]


def test_constant() -> None:
    assert rates(options()) == [1.0] * 10


def test_the_warm_up_rises_linearly_from_its_rate() -> None:
    found = rates(options(warmup_steps=4, warmup_lr=0.2))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and found[5:] == [1.0] * 5


def test_the_cosine_falls_from_the_rate_to_the_final_one() -> None:
    chosen = options(schedule="cosine", final_lr=0.1)
    assert rates(chosen)[0] == 1.0
    assert rates(chosen)[5] == pytest.approx(0.55)
    assert learning_rate(10, chosen, steps=10, steps_per_epoch=2.0) == pytest.approx(0.1)
    assert learning_rate(99, chosen, steps=10, steps_per_epoch=2.0) == pytest.approx(0.1)
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert rates(chosen) == pytest.approx(expected)


def test_steps_fall_at_their_epochs() -> None:
    found = rates(options(schedule="step", milestones=(2.0, 3.5)))
    assert found == pytest.approx([1.0] * 4 + [0.1] * 3 + [0.01] * 3)


def test_the_warm_up_ends_on_the_schedule() -> None:
    chosen = options(schedule="cosine", warmup_steps=3)
    plain = rates(options(schedule="cosine"))
    assert rates(chosen)[3:] == plain[3:]
    assert rates(chosen)[2] == pytest.approx(plain[2] * 2 / 3)


def test_a_training_without_steps_has_a_rate() -> None:
    assert learning_rate(0, options(schedule="cosine"), steps=0, steps_per_epoch=1.0) == 1.0


def test_the_scheduler_sets_the_rate_of_every_group_and_survives_a_restart() -> None:
    chosen = options(lr=0.3, schedule="cosine", warmup_steps=2, final_lr=0.01)
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]

    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], lr=chosen.lr)
        return optimizer, scheduler(optimizer, chosen, steps=10, steps_per_epoch=2.0)

    optimizer, rate = make()
    seen = []
    for step in range(10):
        seen.append([group["lr"] for group in optimizer.param_groups])
        if step == 4:
            states = optimizer.state_dict(), rate.state_dict()
            optimizer, rate = make()
            optimizer.load_state_dict(states[0])
            rate.load_state_dict(states[1])
        optimizer.step()
        rate.step()
    assert [first for first, _ in seen] == pytest.approx(rates(chosen))
    assert all(first == second for first, second in seen)

"""Means over micro batches and workers, and the speed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed

from pipelines.training import meter as module
from pipelines.training.meter import LossMeter


@pytest.fixture(autouse=True)
def one_worker() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_means_are_of_what_came_since_the_last_call() -> None:
    meter = LossMeter(torch.device("cpu"))
    for value in (1.0, 2.0, 6.0):
        meter.add({"loss": torch.tensor(value), "a_loss": torch.tensor(2 * value)})
    assert meter.mean_over_workers() == {"a_loss": 6.0, "loss": 3.0}
    meter.add({"loss": torch.tensor(5.0)})
    assert meter.mean_over_workers() == {"loss": 5.0}


def test_means_are_over_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other worker's mean is 3 higher."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(tensor + 3))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    meter = LossMeter(torch.device("cpu"))
    meter.add({"loss": torch.tensor(1.0)})
    assert meter.mean_over_workers() == {"loss": 2.5}


def test_half_precision_losses_are_summed_in_single_precision() -> None:
    meter = LossMeter(torch.device("cpu"))
    for _ in range(300):
        meter.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert meter.mean_over_workers() == {"loss": 1.0}


def test_the_speed_leaves_out_warming_up_and_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    meter = LossMeter(torch.device("cpu"))
    clock.now = 30.0
    assert meter.images_per_second(global_batch=8, step=10) == 0.0
    clock.now = 32.0
    assert meter.images_per_second(global_batch=8, step=20) == 40.0
    clock.now = 99.0
    meter.restart_clock(20)
    clock.now = 100.0
    assert meter.images_per_second(global_batch=8, step=25) == 40.0


def test_another_number_of_workers_goes_on_with_the_mean_of_all() -> None:
    """Two workers had one micro batch each; one worker has two in a step."""
    meter = LossMeter(torch.device("cpu"))
    meter.load([{"loss": 1.0, "count": 1}, {"loss": 3.0, "count": 1}], rank=0, scale=2.0)
    for value in (5.0, 7.0):
        meter.add({"loss": torch.tensor(value)})
    assert meter.mean_over_workers() == {"loss": 4.0}

"""Intervals of checkpoints and goodput, against closed forms."""

from __future__ import annotations

from math import exp, expm1, inf, sqrt

import pytest

from pipelines.planning.failures import Reliability, goodput, young_interval


def test_youngs_interval() -> None:
    assert young_interval(checkpoint=2.0, between_failures=3600.0) == pytest.approx(120.0)
    assert young_interval(checkpoint=2.0, between_failures=inf) == inf
    assert Reliability(mtbf=3600.0 * 64, restart=0.0).between_failures(64) == 3600.0


def test_without_failures_only_checkpoints_cost_time() -> None:
    assert goodput(interval=90.0, checkpoint=10.0, between_failures=inf, restart=60.0) == pytest.approx(1 - 10 / 100)
    assert goodput(interval=inf, checkpoint=10.0, between_failures=inf, restart=60.0) == 1.0
    rare = goodput(interval=90.0, checkpoint=10.0, between_failures=1e9, restart=60.0)
    assert rare == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize(
    ("interval", "checkpoint", "between", "restart"),
    [(120.0, 2.0, 3600.0, 0.0), (600.0, 20.0, 3600.0, 120.0), (600.0, 60.0, 900.0, 300.0)],
)
def test_the_simulation_agrees_with_dalys_formula(
    interval: float, checkpoint: float, between: float, restart: float
) -> None:
    """J. T. Daly, A higher order estimate of the optimum checkpoint interval, 2006: the complete model of the time."""
    expected = interval / (between * exp(restart / between) * expm1((interval + checkpoint) / between))
    assert goodput(interval, checkpoint, between, restart) == pytest.approx(expected, rel=0.02)


def test_youngs_interval_is_near_the_best() -> None:
    checkpoint, between, restart = 5.0, 7200.0, 60.0
    best = young_interval(checkpoint, between)
    assert best == pytest.approx(sqrt(2 * 5 * 7200))
    at_best = goodput(best, checkpoint, between, restart)
    assert at_best > goodput(best / 4, checkpoint, between, restart)
    assert at_best > goodput(best * 4, checkpoint, between, restart)


def test_it_is_the_same_in_every_call() -> None:
    arguments = {"interval": 600.0, "checkpoint": 20.0, "between_failures": 3600.0, "restart": 120.0}
    assert goodput(**arguments) == goodput(**arguments)

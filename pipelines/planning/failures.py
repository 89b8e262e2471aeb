"""Checkpoints against failures: Young's interval, and the share of time that becomes training (goodput)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

FAILURES = 20_000  # simulated; the standard error of the goodput is then below 0.01
SEED = 0


@dataclass(frozen=True)
class Reliability:
    """How often GPUs fail, and what a failure and a checkpoint cost.

    Attributes:
        mtbf: mean time between the failures of one GPU with its share of the machine, seconds; inf: none fails.
        restart: seconds from a failure to the first new step: it is noticed, workers start, the checkpoint is read.
    """

    mtbf: float
    restart: float

    def between_failures(self, gpus: int) -> float:
        """Mean time until one of `gpus` fails, seconds; each of them stops the training."""
        return self.mtbf / gpus


def young_interval(checkpoint: float, between_failures: float) -> float:
    """Seconds of training between checkpoints that lose the least time: sqrt(2 * checkpoint * between_failures).

    J. W. Young, A first order approximation to the optimum checkpoint interval, 1974.

    Args:
        checkpoint: seconds for which the training waits for a checkpoint.
        between_failures: mean time between failures, seconds; inf: never.
    """
    return sqrt(2 * checkpoint * between_failures) if between_failures < inf else inf


def goodput(interval: float, checkpoint: float, between_failures: float, restart: float) -> float:
    """The share of time that goes into steps which are not lost, simulated over many failures.

    Failures come at random, at a constant rate, and also strike while a checkpoint is written or the training
    restarts. After a failure the training restarts and goes on from the last complete checkpoint.

    Args:
        interval: seconds of training between checkpoints.
        checkpoint: seconds for which the training waits for a checkpoint.
        between_failures: mean time between failures, seconds; inf: none, which needs no simulation.
        restart: seconds from a failure to the first new step.
    """
    if between_failures == inf:
        return 1.0 if interval == inf else interval / (interval + checkpoint)
    times = np.random.default_rng(SEED).exponential(between_failures, FAILURES)  # from a failure to the next
    complete = np.floor(np.maximum(times - restart, 0.0) / (interval + checkpoint))
    return float(complete.sum() * interval / times.sum())

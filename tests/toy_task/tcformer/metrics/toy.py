"""Errors of points in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def evaluate_toy(points: NDArray[Any], truth: NDArray[Any], tolerance: float) -> dict[str, Any]:
    """Mean error and share of points found, beside the error of the mean point.

    Args:
        points: (N, 2, 2) x, y predicted, in pixels.
        truth: the same, true.
        tolerance: pixels; points closer than this count as found.
    """
    errors = np.linalg.norm(points - truth, axis=-1)
    baseline = np.linalg.norm(truth - truth.mean(0), axis=-1)
    found = {"error": float(errors.mean()), "found": float((errors < tolerance).mean())}
    return {**found, "baseline": {"error": float(baseline.mean())}}

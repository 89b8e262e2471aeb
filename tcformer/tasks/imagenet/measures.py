"""Keypoints and regions of image classification: there are none."""

from __future__ import annotations

from typing import Any

from tcformer.metrics.points import PointTables, Skipped
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, measured
from tcformer.tasks.imagenet.task import ImagenetTask


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`."""
    return measured(metrics, {"top1": ("top1",)})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`; accuracy has no parts, so it stands beside that of guessing."""
    return measured(metrics, {"top-1": ("top1",), "chance": ("baseline", "top1")})


def keypoints(task: ImagenetTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    return Skipped("classification predicts no keypoints")


def region(task: ImagenetTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`."""
    return None

"""Keypoints and regions of image classification: there are none."""

from __future__ import annotations

from typing import Any

from tcformer.metrics.points import PointTables, Skipped
from tcformer.metrics.tokens import Region
from tcformer.tasks.imagenet.task import ImagenetTask


def keypoints(task: ImagenetTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    return Skipped("classification predicts no keypoints")


def region(task: ImagenetTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`."""
    return None

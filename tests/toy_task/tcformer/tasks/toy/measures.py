"""The errors of the two points, and where the disc is."""

from __future__ import annotations

from typing import Any

import numpy as np
from tcformer.tasks.toy.task import ToyTask

from tcformer.metrics.points import PointTables, image_point_table
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, measured


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`."""
    return measured(metrics, {"error": ("error",)})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`."""
    return measured(metrics, {"disc": ("error",), "mean point": ("baseline", "error")})


def keypoints(task: ToyTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    data = task.test_set()
    truth = np.stack([data.sample(record["index"], None)["points"] for record in predictions])
    found = np.array([record["points"] for record in predictions])
    radius = truth[:, 1, 0] - truth[:, 0, 0]
    names, parts = ("centre", "rim"), ("disc", "disc")
    labelled = np.ones(truth.shape[:2], bool)
    return {"val": image_point_table(found, truth, labelled, radius, names=names, parts=parts, reference_name="radius")}


def region(task: ToyTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`."""
    (x, y), (edge, _) = sample["points"]
    rows, columns = np.mgrid[:64, :64]
    mask = (rows - y) ** 2 + (columns - x) ** 2 <= (edge - x) ** 2
    return Region(mask, sample["points"], sample["weights"] > 0)

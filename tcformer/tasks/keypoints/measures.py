"""The errors of each keypoint, and where the object is in a crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcformer.data.keypoints.annotations import Annotated
from tcformer.draw.canvas import skeleton_mask
from tcformer.metrics.keypoints import predicted_points, reference_lengths
from tcformer.metrics.points import ALL, PointTable, PointTables, image_point_table
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, measured
from tcformer.tasks.keypoints.task import KeypointsTask

_SET = "test"


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`."""
    return measured(metrics, {"AP": ("all", "AP"), "OKS": ("oks",), "NME": ("nme",)})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`; the normalised error of all points and of each group."""
    groups = metrics.get("points", {}).get(_SET, {ALL: None})
    return measured(metrics, {group: ("points", _SET, group, "NME") for group in groups})


def keypoints(task: KeypointsTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    return {_SET: keypoint_table(task.annotated(task.test_files), predictions)}


def keypoint_table(annotated: Annotated, predictions: Sequence[Mapping[str, Any]]) -> PointTable:
    """The errors of each keypoint, over the objects of which the unit of the errors is known."""
    rows, points = predicted_points(annotated, predictions)
    unit, truth = reference_lengths(annotated)[rows], annotated.people.keypoints[rows]
    known, described = unit > 0, annotated.points
    reference = "the longer side of the box"
    if (pair := described.normalise) is not None:
        reference = f"the distance between {described.names[pair[0]]} and {described.names[pair[1]]}"
    return image_point_table(
        points[known, :, :2],
        truth[known, :, :2],
        truth[known, :, 2] > 0,
        unit[known],
        names=described.names,
        parts=described.group_of,
        reference_name=reference,
    )


def region(task: KeypointsTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`; the mask is that of `skeleton_mask`."""
    points, labelled = sample["points"], sample["weights"] > 0
    placed = np.concatenate([points, labelled[:, None]], 1)
    mask = skeleton_mask(placed, sample["image"].shape[1:], task.points.mask_lines)
    twins = {
        group: np.array([pair for pair in task.points.flip or () if task.points.group_of[pair[0]] == group]).reshape(
            -1, 2
        )
        for group in dict.fromkeys(task.points.group_of)
    }
    return Region(mask, points, labelled, twins)

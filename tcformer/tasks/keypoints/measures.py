"""The errors of each keypoint, and where the object is in a crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.data.keypoints.annotations import Annotated
from tcformer.data.keypoints.points import PointSet
from tcformer.draw.canvas import extent, mask_hull, mask_line
from tcformer.metrics.keypoints import predicted_points, reference_lengths
from tcformer.metrics.points import ALL, PointTable, PointTables, image_point_table
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, measured
from tcformer.tasks.keypoints.task import KeypointsTask

_SET = "test"
_LINE_WIDTH = 0.12  # of the lines of the skeleton in a mask, as a share of the object's size


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
    pair = described.normalise
    between = "" if pair is None else f"the distance between {described.names[pair[0]]} and {described.names[pair[1]]}"
    return image_point_table(
        points[known, :, :2],
        truth[known, :, :2],
        truth[known, :, 2] > 0,
        unit[known],
        names=described.names,
        parts=described.group_of,
        reference_name=between or "the longer side of the box",
    )


def region(task: KeypointsTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`; the mask is the hull of the points with the skeleton's lines."""
    points, labelled = sample["points"], sample["weights"] > 0
    placed = np.concatenate([points, labelled[:, None]], 1)
    mask = object_mask(task.points, placed, sample["image"].shape[1:])
    twins = {
        group: np.array([pair for pair in task.points.flip or () if task.points.group_of[pair[0]] == group]).reshape(
            -1, 2
        )
        for group in dict.fromkeys(task.points.group_of)
    }
    return Region(mask, points, labelled, twins)


def object_mask(points: PointSet, placed: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """An approximate silhouette: thick lines of the skeleton, or the convex hull of the points without a skeleton.

    Args:
        points: which points they are.
        placed: (K, 3) x, y in pixels, and above 0 if labelled.
        size: height and width of the mask, pixels.
    """
    mask = np.zeros(size, np.uint8)
    seen, found = placed[:, 2] > 0, np.asarray(placed, np.float64)
    lines = [(a, b) for a, b in points.skeleton if seen[a] and seen[b]]
    if not lines or points.category == "face":
        mask_hull(mask, found[seen], 0.0)
        return mask.astype(bool)
    width = _LINE_WIDTH * extent(found[seen])
    for a, b in lines:
        mask_line(mask, found[a], found[b], width)
    return mask.astype(bool)

"""The errors of whole-body keypoints, and where the person is in a crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.data.wholebody.dataset import People, annotation_file, load_people
from tcformer.data.wholebody.keypoints import FLIP_PAIRS, NAMES, NUM_KEYPOINTS, PARTS, subset
from tcformer.draw.wholebody import person_mask
from tcformer.metrics.points import PointTable, PointTables, Skipped, image_point_table
from tcformer.metrics.tokens import Region
from tcformer.metrics.wholebody_results import keypoints_of
from tcformer.tables import Metrics, measured
from tcformer.tasks.wholebody.task import WholebodyTask

_PART_OF = [next(part for part, rows in PARTS.items() if i < rows.stop) for i in range(NUM_KEYPOINTS)]
# The point of a left hand and its twin are in two parts.
_TWINS = {
    name: np.array([pair for pair in FLIP_PAIRS if _PART_OF[pair[0]] == part])
    for name, part in (("body", "body"), ("foot", "foot"), ("face", "face"), ("hand", "lefthand"))
}

#: The parts with an AP of their own in metrics.json, with the names that charts give them.
_MEASURED = {"body": "body", "foot": "foot", "face": "face", "hand": "hands", "wholebody": "whole body"}


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`; AP is that of all points, or of the parts alone that exist."""
    of_parts = {f"{part}_AP": (part, "AP") for part in _MEASURED if part != "wholebody"}
    if "wholebody" in metrics:
        of_parts = {"AP": ("wholebody", "AP"), "body_AP": ("body", "AP")}
    return measured(metrics, {**of_parts, "OKS": ("oks",)})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`; the AP of each part."""
    return measured(metrics, {name: (part, "AP") for part, name in _MEASURED.items()})


def keypoints(task: WholebodyTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`.

    Predictions are compared with the annotated persons in whose boxes they were made, over the labelled points.
    """
    if task.evaluation.boxes != "ground_truth":
        return Skipped("predictions were made in detections; evaluate in annotated boxes (boxes: ground_truth)")
    people = load_people(annotation_file(task.root, "val"))
    return {"val": keypoint_table(people, predictions, subset(task.options.keypoints))}


def keypoint_table(people: People, predictions: Sequence[Mapping[str, Any]], chosen: NDArray[np.int64]) -> PointTable:
    """The errors of each keypoint.

    Args:
        people: the annotations.
        predictions: results with the annotation_id of the person in whose box they were made.
        chosen: (K,) indices of the predicted points among the 133.
    """
    found = {prediction["annotation_id"]: prediction for prediction in predictions}
    rows = [row for row, number in enumerate(people.annotation_id.tolist()) if number in found]
    points = [keypoints_of(found[int(people.annotation_id[row])])[chosen, :2] for row in rows]
    truth = people.keypoints[rows][:, chosen]
    return image_point_table(
        np.array(points).reshape(-1, len(chosen), 2),
        truth[..., :2],
        truth[..., 2] > 0,
        people.box[rows, 2:].max(1),
        names=[NAMES[point] for point in chosen],
        parts=[_PART_OF[point] for point in chosen],
        reference_name="the longer side of the person's box",
    )


def region(task: WholebodyTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`; the mask is a silhouette made from the annotated points."""
    return person_region(sample["points"], sample["weights"] > 0, sample["image"].shape[1:])


def person_region(points: NDArray[np.floating], labelled: NDArray[np.bool_], image_size: tuple[int, int]) -> Region:
    """Where a person with the points (133, 2) is in a crop of a height and width; labelled (133,) are annotated."""
    mask = person_mask(np.concatenate([points, labelled[:, None]], 1), image_size)
    return Region(mask, points, labelled, _TWINS)

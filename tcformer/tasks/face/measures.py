"""The errors of face landmarks, and where the face is in a crop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.data.face.dataset import Faces, list_file, load_faces
from tcformer.data.face.landmarks import EYE_CORNERS, FLIP_PAIRS, NUM_LANDMARKS
from tcformer.draw.face import face_mask
from tcformer.metrics.points import PointTable, PointTables, image_point_table
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, group_names, measured
from tcformer.tasks.face.task import FaceTask

# First and last landmark of each part.
_PARTS = (("contour", 0, 32), ("brows", 33, 50), ("nose", 51, 59), ("eyes", 60, 75), ("mouth", 76, 95))
_PUPILS = (96, 97)
_PART_OF = [
    "eyes" if i in _PUPILS else next(part for part, first, last in _PARTS if first <= i <= last)
    for i in range(NUM_LANDMARKS)
]
_TWINS = {part: np.array([p for p in FLIP_PAIRS if _PART_OF[p[0]] == part]) for part, _, _ in _PARTS}


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`."""
    return measured(metrics, {"NME": ("full", "NME")})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`; the NME of the test set and of its subsets."""
    return measured(metrics, {name: (name, "NME") for name in group_names(metrics)})


def keypoints(task: FaceTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    faces = load_faces(list_file(task.root, "test"))
    found = {prediction["index"]: prediction["points"] for prediction in predictions}
    return {"full": landmark_table(np.array([found[index] for index in range(len(faces))]), faces)}


def landmark_table(points: NDArray[np.float64], faces: Faces) -> PointTable:
    """The errors of each landmark.

    Args:
        points: (N, 98, 2) predicted landmarks of the faces, pixels.
        faces: the annotations.
    """
    right, left = EYE_CORNERS
    return image_point_table(
        points,
        faces.points,
        np.ones(faces.points.shape[:2], bool),
        np.linalg.norm(faces.points[:, right] - faces.points[:, left], axis=-1),
        names=[str(landmark) for landmark in range(NUM_LANDMARKS)],
        parts=_PART_OF,
        reference_name="the distance between the outer eye corners",
    )


def region(task: FaceTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`; the mask is the convex hull of the landmarks."""
    points, labelled = sample["points"], sample["weights"] > 0
    mask = face_mask(np.concatenate([points, labelled[:, None]], 1), sample["image"].shape[1:])
    return Region(mask, points, labelled, _TWINS)

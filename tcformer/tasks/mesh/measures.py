"""The errors of the joints of bodies, and where the person is in a crop."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tcformer.body.camera import FOCAL_OVER_SIDE
from tcformer.body.joints import NUM_OPENPOSE, SPIN_FLIP
from tcformer.draw.mesh import body_mask
from tcformer.metrics.points import PointTable, PointTables, mean_of_counted
from tcformer.metrics.tokens import Region
from tcformer.tables import Metrics, group_names, measured
from tcformer.tasks.mesh.task import MeshTask

#: The 14 evaluated joints, in the order of `tcformer.metrics.mesh.H36M_TO_J14`.
_NAMES: Final = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist", "neck", "head top"),
)
_PARTS: Final = (*("legs",) * 6, *("arms",) * 6, *("head",) * 2)
#: Millimetres below which a joint is correct: 3DPCK of Mehta et al., 3DV 2017.
_PCK_MM: Final = 150.0
_MEANING: Final = {
    "mpjpe": "error in mm, joints relative to the pelvis",
    "pa_mpjpe": "error in mm after the best similarity transform",
    "pck150": "fraction of joints with an error below 150 mm, relative to the pelvis",
}

_PAIRS = np.array([(i, int(j)) for i, j in enumerate(SPIN_FLIP) if i < j])
# OpenPose's 25 joints and the 24 others are two sets of joints of one body, and files contain one or both.
_TWINS = {"openpose": _PAIRS[_PAIRS[:, 0] < NUM_OPENPOSE], "joints": _PAIRS[_PAIRS[:, 0] >= NUM_OPENPOSE]}
_LEAST_POINTS = 4  # from which a camera is computed


def headline(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.headline`; the errors on the first test set, mm."""
    first = next(iter(group_names(metrics)), "")
    return measured(metrics, {"MPJPE": (first, "mpjpe"), "PA_MPJPE": (first, "pa_mpjpe")})


def parts(metrics: Metrics) -> dict[str, float]:
    """See `tcformer.tasks.registry.TaskEntry.parts`; the MPJPE of each test set, mm."""
    return measured(metrics, {name: (name, "mpjpe") for name in group_names(metrics)})


def keypoints(task: MeshTask, predictions: list[dict[str, Any]]) -> PointTables:
    """See `tcformer.tasks.registry.TaskEntry.keypoints`."""
    tables = {}
    for number, test in enumerate(task.evaluation.tests):
        of_test = [prediction for prediction in predictions if prediction["test"] == number]
        errors, aligned = (
            np.array([prediction[name] for prediction in of_test], np.float64).reshape(-1, len(_NAMES))
            for name in ("joints", "pa_joints")
        )
        measured = {"mpjpe": errors, "pa_mpjpe": aligned, "pck150": errors < _PCK_MM}
        counted = np.ones(errors.shape, bool)
        means = {name: mean_of_counted(values, counted) for name, values in measured.items()}
        tables[test.name] = PointTable(_NAMES, _PARTS, counted.sum(0), means, _MEANING)
    return tables


def region(task: MeshTask, sample: dict[str, Any]) -> Region | None:
    """See `tcformer.tasks.registry.TaskEntry.region`.

    The mask is the silhouette of the annotated body, as the camera sees it that projects the body's joints nearest to
    the annotated points. It is not known without a body or with fewer than four points.
    """
    size = sample["image"].shape[1]
    points, known = sample["keypoints"][:, :2], sample["keypoints"][:, 2] > 0
    mask = None
    if sample["has_smpl"] and known.sum() >= _LEAST_POINTS:
        rotations, shape = (torch.from_numpy(sample[name])[None] for name in ("rotations", "shape"))
        with torch.no_grad():
            joints = task.pose(rotations, shape).spin[0].cpu().numpy()
            vertices = task.surface(rotations, shape).vertices[0].numpy()
        camera = fit_camera(joints[known], points[known])
        mask = body_mask(vertices, task.surface.faces, camera, (size, size))
    return Region(mask, (points + 1) * (size / 2), known, _TWINS)


def fit_camera(joints: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """The camera that projects joints nearest to points, by least squares (see `tcformer.body.camera.project`).

    Args:
        joints: (N, 3) metres, camera axes; at least two different ones.
        points: (N, 2) in half crops from the crop's centre.

    Returns:
        (3,) scale and shift x, y.
    """
    place, seen = joints.astype(np.float64), points.astype(np.float64)
    zero, one = np.zeros(len(place)), np.ones(len(place))
    # x and y of each joint are two equations for scale, scale * shift x and scale * shift y.
    left = np.concatenate([np.stack([place[:, 0], one, zero], 1), np.stack([place[:, 1], zero, one], 1)])
    depth, scale = np.ones(len(place)), 0.0
    for _ in range(3):  # the depth depends a little on the scale
        right = (seen * depth[:, None]).T.ravel()
        scale, x, y = np.linalg.lstsq(left, right, rcond=None)[0]
        depth = 1 + scale * place[:, 2] / (2 * FOCAL_OVER_SIDE)
    return np.array([scale, x / scale, y / scale]) if scale else np.zeros(3)

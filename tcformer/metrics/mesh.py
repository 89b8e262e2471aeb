"""Errors of 3D joints, MPJPE and PA-MPJPE, and the joints that 3DPW and Human3.6M are evaluated on.

Source: SPIN's eval.py (github.com/nkolot/SPIN), which EFT and TCFormer follow. Joints are regressed from the vertices
of the mesh with Human3.6M's regressor. `common_joints` and `human36m_truth` subtract the pelvis from prediction and
ground truth; `mpjpe` and `pa_mpjpe` do not. Positions are in metres, errors in millimetres.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Rows of SPIN's J_regressor_h36m for the 14 evaluated joints: right ankle, knee, hip; left hip, knee, ankle; right
#: wrist, elbow, shoulder; left shoulder, elbow, wrist; neck; head top.
H36M_TO_J14: Final = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

#: Indices of these joints among the 24 of SPIN's annotation files. The last is "head (H36M)", not LSP's head top.
S24_TO_J14: Final = (*range(13), 18)

_S24_PELVIS: Final = 14
_METRES_TO_MM: Final = 1000.0


def common_joints(h36m: ArrayLike) -> Array:
    """Select the 14 evaluated joints (N, 14, 3), relative to the pelvis, of regressed joints (N, 17, 3)."""
    joints = np.asarray(h36m, np.float64)
    return joints[:, H36M_TO_J14] - joints[:, :1]


def threedpw_truth(male: ArrayLike, female: ArrayLike, is_male: ArrayLike) -> Array:
    """The evaluated joints (N, 14, 3) of 3DPW's ground truth, relative to the pelvis.

    SPIN's protocol poses the ground truth with the body model of the person's gender (a gender that is not male counts
    as female) and the prediction with the neutral model. It evaluates all frames with a valid camera pose.

    Args:
        male: (N, 17, 3) joints regressed from the male model in the ground-truth pose and shape.
        female: (N, 17, 3) the same for the female model.
        is_male: (N,) bool.
    """
    chosen = np.where(np.asarray(is_male, bool)[:, None, None], np.asarray(male), np.asarray(female))
    return common_joints(chosen)


def human36m_truth(joints: ArrayLike) -> Array:
    """The evaluated joints (N, 14, 3) of Human3.6M's ground truth, relative to the pelvis.

    SPIN has two protocols, which differ in the frames: protocol 1 evaluates those of all four cameras, protocol 2 those
    of the frontal camera (its files h36m_valid_protocol1.npz and h36m_valid_protocol2.npz).

    Args:
        joints: (N, 24, 3) or, with a confidence, (N, 24, 4): the field S of SPIN's files.
    """
    s = np.asarray(joints, np.float64)[..., :3]
    return s[:, S24_TO_J14] - s[:, _S24_PELVIS : _S24_PELVIS + 1]


def joint_errors(pred: ArrayLike, gt: ArrayLike) -> Array:
    """Mean distance of the joints of each sample.

    Args:
        pred: (N, J, 3) predicted joints, metres.
        gt: (N, J, 3) ground-truth joints, metres.

    Returns:
        (N,) millimetres.

    Raises:
        ValueError: the shapes differ or are not (N, J, 3).
    """
    predicted, true = _checked(pred, gt)
    return np.linalg.norm(predicted - true, axis=-1).mean(-1) * _METRES_TO_MM


def joint_distances(pred: ArrayLike, gt: ArrayLike) -> Array:
    """Distance of each joint, (N, J) millimetres. Arguments and errors as for `joint_errors`."""
    predicted, true = _checked(pred, gt)
    return np.linalg.norm(predicted - true, axis=-1) * _METRES_TO_MM


def mpjpe(pred: ArrayLike, gt: ArrayLike) -> float:
    """Mean per-joint position error in millimetres: the mean distance over joints and samples.

    Args:
        pred: (N, J, 3) predicted joints, metres, relative to their pelvis.
        gt: (N, J, 3) ground-truth joints, metres, relative to their pelvis.

    Raises:
        ValueError: the shapes differ or are not (N, J, 3), or there is no sample.
    """
    return _mean(joint_errors(pred, gt))


def pa_mpjpe(pred: ArrayLike, gt: ArrayLike) -> float:
    """MPJPE in millimetres after each prediction was aligned with its ground truth (`procrustes`).

    Arguments and errors as for `mpjpe`.
    """
    return _mean(joint_errors(procrustes(pred, gt), gt))


def procrustes(pred: ArrayLike, gt: ArrayLike) -> Array:
    """Align each sample of `pred` (N, J, 3) with `gt` (N, J, 3) by scale, rotation and translation.

    The alignment minimises the squared distance. If the best orthogonal matrix is a reflection, the direction of least
    variance is reversed, so that the result is a rotation (Umeyama 1991).
    """
    predicted, true = _checked(pred, gt)
    mean_predicted, mean_true = predicted.mean(1, keepdims=True), true.mean(1, keepdims=True)
    x, y = predicted - mean_predicted, true - mean_true
    u, s, vt = np.linalg.svd(np.einsum("nji,njk->nik", x, y))
    sign = np.ones_like(s)
    sign[:, 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[:, None]) @ vt  # x @ rotation is nearest to y
    spread = (x**2).sum((1, 2))
    # A prediction without extent cannot be scaled; it is moved to the mean of the ground truth.
    scale = np.divide((s * sign).sum(1), spread, out=np.zeros_like(spread), where=spread > 0)
    return scale[:, None, None] * (x @ rotation) + mean_true


def _checked(pred: ArrayLike, gt: ArrayLike) -> tuple[Array, Array]:
    predicted, true = np.asarray(pred, np.float64), np.asarray(gt, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[2] != 3:
        raise ValueError(f"expected joints (N, J, 3) of one shape, found {predicted.shape} and {true.shape}")
    return predicted, true


def _mean(errors: Array) -> float:
    if not len(errors):
        raise ValueError("expected at least one sample, found none")
    return float(errors.mean())

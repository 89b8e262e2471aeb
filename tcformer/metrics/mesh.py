"""Errors of 3D joints: MPJPE and PA-MPJPE, and the joints on which 3DPW and Human3.6M are measured.

Source: SPIN's eval.py (github.com/nkolot/SPIN), which EFT and TCFormer follow. Joints are those of Human3.6M's
regressor on the mesh's vertices. The pelvis, its first row, is subtracted from prediction and truth each, in
`common_joints` and `human36m_truth`; `mpjpe` and `pa_mpjpe` subtract nothing themselves. Metres in, millimetres
out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Rows of SPIN's J_regressor_h36m for the 14 joints: right ankle, knee, hip; left hip, knee, ankle; right wrist,
#: elbow, shoulder; left shoulder, elbow, wrist; neck; head top.
H36M_TO_J14: Final = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

#: The same joints among the 24 of SPIN's annotation files. The last is "head (H36M)", not the LSP's head top.
S24_TO_J14: Final = (*range(13), 18)

_S24_PELVIS: Final = 14
_METRES_TO_MM: Final = 1000.0


def common_joints(h36m: ArrayLike) -> Array:
    """The 14 joints (N, 14, 3) relative to the pelvis, from joints (N, 17, 3) regressed from the mesh."""
    joints = np.asarray(h36m, np.float64)
    return joints[:, H36M_TO_J14] - joints[:, :1]


def threedpw_truth(male: ArrayLike, female: ArrayLike, is_male: ArrayLike) -> Array:
    """The 14 joints (N, 14, 3) of 3DPW's truth, relative to the pelvis.

    SPIN's protocol: the truth is posed with the body model of the person's gender, where a gender that is not
    male counts as female; the prediction is posed with the neutral one. Frames are those with a valid camera
    pose, without a filter on the box.

    Args:
        male: (N, 17, 3) joints regressed from the male model's mesh in the true pose and shape.
        female: (N, 17, 3) the same of the female model.
        is_male: (N,) bool.
    """
    chosen = np.where(np.asarray(is_male, bool)[:, None, None], np.asarray(male), np.asarray(female))
    return common_joints(chosen)


def human36m_truth(joints: ArrayLike) -> Array:
    """The 14 joints (N, 14, 3) of Human3.6M's truth, relative to the pelvis.

    Protocol 2 of SPIN: frames of the frontal camera (the file h36m_valid_protocol2.npz).

    Args:
        joints: (N, 24, 3) or, with a confidence, (N, 24, 4): the field S of SPIN's files.
    """
    s = np.asarray(joints, np.float64)[..., :3]
    return s[:, S24_TO_J14] - s[:, _S24_PELVIS : _S24_PELVIS + 1]


def joint_errors(pred: ArrayLike, gt: ArrayLike) -> Array:
    """Mean distance of each sample's joints (N,), millimetres, for joints (N, J, 3) in metres.

    Raises:
        ValueError: shapes that differ or are not (N, J, 3).
    """
    predicted, true = _checked(pred, gt)
    return np.linalg.norm(predicted - true, axis=-1).mean(-1) * _METRES_TO_MM


def mpjpe(pred: ArrayLike, gt: ArrayLike) -> float:
    """Mean per joint position error, millimetres: the mean distance over joints and samples.

    Nothing is centred here: both sides are to be relative to their pelvis already.

    Args:
        pred: (N, J, 3) metres.
        gt: (N, J, 3) metres.

    Raises:
        ValueError: shapes that differ or are not (N, J, 3), or no sample.
    """
    return _mean(joint_errors(pred, gt))


def pa_mpjpe(pred: ArrayLike, gt: ArrayLike) -> float:
    """MPJPE after each prediction was scaled, turned and shifted to its truth (`procrustes`), millimetres.

    Arguments and errors as for `mpjpe`.
    """
    return _mean(joint_errors(procrustes(pred, gt), gt))


def procrustes(pred: ArrayLike, gt: ArrayLike) -> Array:
    """Each sample of `pred` (N, J, 3) moved by the similarity that brings it nearest to `gt` (N, J, 3).

    Scale, rotation and translation of least squared distance; a mirror image is not turned inside out: where
    the best orthogonal matrix is a reflection, the direction of least variance is reversed (Umeyama 1991).
    """
    predicted, true = _checked(pred, gt)
    mean_predicted, mean_true = predicted.mean(1, keepdims=True), true.mean(1, keepdims=True)
    x, y = predicted - mean_predicted, true - mean_true
    u, s, vt = np.linalg.svd(np.einsum("nji,njk->nik", x, y))
    sign = np.ones_like(s)
    sign[:, 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[:, None]) @ vt  # x @ rotation is nearest to y
    spread = (x**2).sum((1, 2))
    # A prediction without extent cannot be scaled; it becomes the truth's mean.
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

"""Metrics of face alignment on WFLW: NME, failure rate and AUC, for all faces and for six subsets."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.data.face.landmarks import ATTRIBUTES, EYE_CORNERS, NUM_LANDMARKS

#: An NME above this is a failure. The error curve of the AUC ends here.
FAILURE: Final = 0.1

_STEPS: Final = 1000  # of the error curve: steps of 1e-4; Simpson's rule needs an even number

#: Metrics of a set of faces: NME is the mean normalised error, FR10 the fraction of failures, AUC10 the area under the
#: curve "fraction of faces with an error of at most t" for t from 0 to 10 %, divided by 10 %.
FaceMetrics: TypeAlias = dict[str, float | int | None]


def face_nme(pred: ArrayLike, gt: ArrayLike) -> NDArray[np.float64]:
    """Normalised mean error of each face: the mean distance of its points, divided by the inter-ocular distance.

    The inter-ocular distance is that of the annotated outer eye corners, points 60 and 72. The error is a fraction:
    0.046 is what publications give as 4.6 percent.

    Args:
        pred: (N, 98, 2) predicted points, pixels.
        gt: (N, 98, 2) annotated points, pixels.

    Returns:
        (N,); inf or NaN if both corners are at the same place.

    Raises:
        ValueError: a shape is wrong, or the shapes differ.
    """
    found, truth = np.asarray(pred, np.float64), np.asarray(gt, np.float64)
    if found.shape != truth.shape or found.ndim != 3 or found.shape[1:] != (NUM_LANDMARKS, 2):
        raise ValueError(
            f"pred has shape {found.shape} and gt {truth.shape}; expected (N, {NUM_LANDMARKS}, 2) for both"
        )
    right, left = EYE_CORNERS
    distance = np.linalg.norm(found - truth, axis=-1).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return distance / np.linalg.norm(truth[:, right] - truth[:, left], axis=-1)


def failure_rate(nme: ArrayLike, threshold: float = FAILURE) -> float:
    """Fraction of the errors (N,), N at least 1, that are above the threshold or NaN."""
    return 1.0 - float(np.mean(np.asarray(nme, np.float64) <= threshold))


def area_under_curve(nme: ArrayLike, threshold: float = FAILURE) -> float:
    """Area under the cumulative distribution of errors from 0 to the threshold, divided by the threshold.

    As in ADNet and STAR: the fraction of errors (N,), N at least 1, of at most t is computed at 1001 equally spaced t
    and integrated by Simpson's rule. The best value is 1.
    """
    errors = np.sort(np.asarray(nme, np.float64))
    steps = np.arange(_STEPS + 1) * (threshold / _STEPS)
    share = np.searchsorted(errors, steps, side="right") / len(errors)
    weights = np.ones(_STEPS + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(share @ weights / (3 * _STEPS))


def evaluate_face(nme: ArrayLike, attributes: ArrayLike) -> dict[str, FaceMetrics]:
    """Compute the metrics of all faces and of the faces with each attribute.

    Args:
        nme: (N,) errors of `face_nme`.
        attributes: (N, 6) bool, in the order of `landmarks.ATTRIBUTES`.

    Returns:
        {"full" | "pose" | "expression" | "illumination" | "make-up" | "occlusion" | "blur": {"NME", "FR10", "AUC10",
        "count"}}. The first three are fractions, or None if there is no face.

    Raises:
        ValueError: `attributes` has another shape.
    """
    errors, flags = np.asarray(nme, np.float64), np.asarray(attributes, bool)
    if flags.shape != (len(errors), len(ATTRIBUTES)):
        raise ValueError(f"attributes have shape {flags.shape}; expected ({len(errors)}, {len(ATTRIBUTES)})")
    return {"full": _metrics(errors)} | {name: _metrics(errors[flags[:, k]]) for k, name in enumerate(ATTRIBUTES)}


def _metrics(nme: NDArray[np.float64]) -> FaceMetrics:
    if not len(nme):
        return {"NME": None, "FR10": None, "AUC10": None, "count": 0}
    return {
        "NME": float(nme.mean()),
        "FR10": failure_rate(nme),
        "AUC10": area_under_curve(nme),
        "count": len(nme),
    }


def mean_shape(points: NDArray[np.float64], centre: NDArray[np.float64], extent: NDArray[np.float64]) -> NDArray:
    """Mean position of each point in the crop of its face: the baseline that a network has to beat.

    Args:
        points: (N, 98, 2) pixels.
        centre: (N, 2) centres of the crops, pixels.
        extent: (N, 2) width, height of the crops, pixels.

    Returns:
        (98, 2) x, y from the centre of the crop, as fractions of its extent.
    """
    return ((points - centre[:, None]) / extent[:, None]).mean(0)


def place_shape(shape: NDArray, centre: NDArray[np.float64], extent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place the shape (98, 2) of `mean_shape` in crops: (N, 98, 2) pixels. Arguments as for `mean_shape`."""
    return centre[:, None] + shape * extent[:, None]

"""Face alignment measures as published for WFLW: NME, failure rate and AUC, on all faces and on six subsets."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.data.face.landmarks import ATTRIBUTES, EYE_CORNERS, NUM_LANDMARKS

#: An NME above this is a failure, and the AUC's curve ends here.
FAILURE: Final = 0.1

_STEPS: Final = 1000  # of the curve, an even number for Simpson's rule: steps of 1e-4

#: Measures of a set of faces: NME is their mean normalised error, FR10 the share that failed, AUC10 the area under the
#: curve "share of faces with an error of at most t" for t from 0 to 10 %, divided by 10 %.
FaceMeasures: TypeAlias = dict[str, float | int | None]


def face_nme(pred: ArrayLike, gt: ArrayLike) -> NDArray[np.float64]:
    """Normalised mean error of each face: the mean distance of its points over the inter-ocular distance.

    The latter is that of the annotated outer eye corners, points 60 and 72. A fraction: 0.046 is the 4.6 of
    publications, which give percent.

    Args:
        pred: (N, 98, 2) pixels.
        gt: (N, 98, 2) pixels.

    Returns:
        (N,); inf or nan where both corners lie in one place.

    Raises:
        ValueError: a shape is wrong, or the two differ.
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
    """Share of the errors (N,) that are above the threshold, or no number. N at least 1."""
    return 1.0 - float(np.mean(np.asarray(nme, np.float64) <= threshold))


def area_under_curve(nme: ArrayLike, threshold: float = FAILURE) -> float:
    """Area under the errors' cumulative distribution from 0 to the threshold, divided by the threshold.

    As ADNet and STAR compute it: the share of errors (N,) of at most t, at 1001 equally spaced t from 0 to the
    threshold, integrated by Simpson's rule. N at least 1. 1 is best.
    """
    errors = np.sort(np.asarray(nme, np.float64))
    steps = np.arange(_STEPS + 1) * (threshold / _STEPS)
    share = np.searchsorted(errors, steps, side="right") / len(errors)
    weights = np.ones(_STEPS + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(share @ weights / (3 * _STEPS))


def evaluate_face(nme: ArrayLike, attributes: ArrayLike) -> dict[str, FaceMeasures]:
    """Measures on all faces and on the faces with each attribute.

    Args:
        nme: (N,) errors of `face_nme`.
        attributes: (N, 6) bool, in the order of `landmarks.ATTRIBUTES`.

    Returns:
        {"full" | "pose" | "expression" | "illumination" | "make-up" | "occlusion" | "blur": {"NME", "FR10", "AUC10",
        "count"}}; the first three are fractions, and None where there is no face.
    """
    errors, flags = np.asarray(nme, np.float64), np.asarray(attributes, bool)
    if flags.shape != (len(errors), len(ATTRIBUTES)):
        raise ValueError(f"attributes have shape {flags.shape}; expected ({len(errors)}, {len(ATTRIBUTES)})")
    return {"full": _measures(errors)} | {name: _measures(errors[flags[:, k]]) for k, name in enumerate(ATTRIBUTES)}


def _measures(nme: NDArray[np.float64]) -> FaceMeasures:
    if not len(nme):
        return {"NME": None, "FR10": None, "AUC10": None, "count": 0}
    return {
        "NME": float(nme.mean()),
        "FR10": failure_rate(nme),
        "AUC10": area_under_curve(nme),
        "count": len(nme),
    }


def mean_shape(points: NDArray[np.float64], centre: NDArray[np.float64], extent: NDArray[np.float64]) -> NDArray:
    """Mean position of every point in its face's crop: what a network has to beat.

    Args:
        points: (N, 98, 2) pixels.
        centre: (N, 2) and
        extent: (N, 2) width, height of the crops in pixels.

    Returns:
        (98, 2) x, y from the crop's middle, as fractions of its extent; `place_shape` is the inverse.
    """
    return ((points - centre[:, None]) / extent[:, None]).mean(0)


def place_shape(shape: NDArray, centre: NDArray[np.float64], extent: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shape (98, 2) of `mean_shape` in crops: (N, 98, 2) pixels."""
    return centre[:, None] + shape * extent[:, None]

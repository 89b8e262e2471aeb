"""Object keypoint similarity (OKS), and non-maximum suppression by it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.data.crops import SCALE_UNIT
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, SIGMAS
from tcformer.metrics.wholebody_results import keypoints_of


def oks_nms(
    results: list[dict[str, Any]], threshold: float, predicted: NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """Remove duplicates: results that are too similar to a result of higher score on the same image.

    The similarity is the OKS over all predicted points, whatever their scores; its area is the mean of the areas of
    the two crops. Of results of equal score, the first is kept.

    Args:
        results: results of any number of images, in any order.
        threshold: two results with an OKS above it are the same person.
        predicted: (K,) indices of the predicted points among the 133; all if None.

    Returns:
        The results that are kept, in the order of `results`.
    """
    compared = np.zeros(NUM_KEYPOINTS, bool)
    compared[slice(None) if predicted is None else predicted] = True
    by_image: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(results):
        by_image[item["image_id"]].append(index)
    kept: list[int] = []
    for members in by_image.values():
        order = sorted(members, key=lambda index: -results[index]["score"])
        points = np.stack([keypoints_of(results[index])[:, :2] for index in order])
        area = np.array([np.prod(np.multiply(results[index]["scale"], SCALE_UNIT)) for index in order])
        alive = np.ones(len(order), bool)
        for i, index in enumerate(order):
            if alive[i]:
                kept.append(index)
                rest = np.flatnonzero(alive[i + 1 :]) + i + 1
                similarity = oks(points[rest], points[i], 0.5 * (area[rest] + area[i]), compared[None])
                alive[rest[similarity > threshold]] = False
    return [results[index] for index in sorted(kept)]


def oks(
    points: NDArray,
    reference: NDArray,
    area: ArrayLike,
    labelled: NDArray[np.bool_] | None = None,
    sigmas: NDArray[np.float64] = SIGMAS,
) -> NDArray[np.float64]:
    """Object keypoint similarity over the 133 points: the mean of exp(-d² / (2 area (2 sigma)²)).

    Args:
        points: (N, 133, 2) pixels.
        reference: (133, 2) or (N, 133, 2) pixels.
        area: (N,) pixels².
        labelled: (N, 133) points that count, at least one a row; all if None.
        sigmas: (K,) of other points than the 133; all shapes then have K for 133.

    Returns:
        (N,) in [0, 1].
    """
    squared = np.square(np.asarray(points, np.float64) - reference).sum(-1)  # (N, 133)
    spread = 2 * np.square(2 * sigmas) * (np.asarray(area, np.float64)[:, None] + np.spacing(1))
    similarity = np.exp(-squared / spread)
    if labelled is None:
        return similarity.mean(-1)
    return (similarity * labelled).sum(-1) / labelled.sum(-1)

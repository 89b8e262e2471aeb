"""Object keypoint similarity, and suppressing results that are too similar."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.data.crops import SCALE_UNIT
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, SIGMAS
from tcformer.metrics.results import keypoints_of


def oks_nms(
    records: list[dict[str, Any]], threshold: float, predicted: NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """Drop, image by image, a result too similar to one of higher score.

    The similarity is the OKS over all predicted points whatever their scores, with the mean of the two crops' areas
    as the area. Equal scores keep their order.

    Args:
        records: results of any number of images, in any order.
        threshold: results of an OKS above it are taken for the same person.
        predicted: (K,) which of the 133 points are predicted; all if None.

    Returns:
        The records kept, in their order.
    """
    compared = np.zeros(NUM_KEYPOINTS, bool)
    compared[slice(None) if predicted is None else predicted] = True
    by_image: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(records):
        by_image[item["image_id"]].append(index)
    kept: list[int] = []
    for members in by_image.values():
        order = sorted(members, key=lambda index: -records[index]["score"])
        points = np.stack([keypoints_of(records[index])[:, :2] for index in order])
        area = np.array([np.prod(np.multiply(records[index]["scale"], SCALE_UNIT)) for index in order])
        alive = np.ones(len(order), bool)
        for i, index in enumerate(order):
            if alive[i]:
                kept.append(index)
                rest = np.flatnonzero(alive[i + 1 :]) + i + 1
                similarity = oks(points[rest], points[i], 0.5 * (area[rest] + area[i]), compared[None])
                alive[rest[similarity > threshold]] = False
    return [records[index] for index in sorted(kept)]


def oks(
    points: NDArray, reference: NDArray, area: ArrayLike, labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Object keypoint similarity over the 133 points: mean of exp(-d² / (2 area (2 sigma)²)).

    Args:
        points: (N, 133, 2) pixels.
        reference: (133, 2) or (N, 133, 2) pixels.
        area: (N,) pixels².
        labelled: (N, 133) points to take into account; all by default. At least one a row.

    Returns:
        (N,) in [0, 1].
    """
    squared = np.square(np.asarray(points, np.float64) - reference).sum(-1)  # (N, 133)
    spread = 2 * np.square(2 * SIGMAS) * (np.asarray(area, np.float64)[:, None] + np.spacing(1))
    similarity = np.exp(-squared / spread)
    if labelled is None:
        return similarity.mean(-1)
    return (similarity * labelled).sum(-1) / labelled.sum(-1)

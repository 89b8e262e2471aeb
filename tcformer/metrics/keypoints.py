"""Measures of any number of keypoints: COCO's AP and AR by OKS with the dataset's sigmas, mean OKS, NME.

Predictions are made in annotated boxes, so each belongs to one annotated object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tcformer.data.crops import SCALE_UNIT, to_image
from tcformer.data.keypoints.annotations import Annotated
from tcformer.data.wholebody.dataset import Crops
from tcformer.errors import UserError
from tcformer.metrics.oks import oks
from tcformer.metrics.wholebody import coco_measures, placed_points
from tcformer.metrics.wholebody_results import instance_score


def keypoint_results(
    inside: Tensor,
    scores: Tensor,
    input_size: tuple[int, int],
    batch: Mapping[str, Tensor],
    threshold: float,
    category_id: int,
) -> list[dict[str, Any]]:
    """Results in COCO's keypoint format for a batch of decoded crops.

    As those of `tcformer.metrics.wholebody_results.make_results`, they also have annotation_id, center and scale.

    Args:
        inside: (B, K, 2) x, y in pixels of the network's input.
        scores: (B, K).
        input_size: (height, width) of the network's input.
        batch: the samples: centre, extent, score, image_id, annotation_id.
        threshold: point scores above it count in the score of the result.
        category_id: of the category.
    """
    centre, extent = (batch[key].cpu().numpy().astype(np.float64) for key in ("centre", "extent"))
    points, values = to_image(inside.cpu().numpy(), centre, extent, input_size), scores.cpu().numpy()
    totals = instance_score(values, batch["score"].cpu().numpy(), threshold)
    triplets = np.concatenate([points, values[..., None]], -1)
    return [
        {
            "image_id": int(batch["image_id"][row]),
            "category_id": category_id,
            "annotation_id": int(batch["annotation_id"][row]),
            "keypoints": triplets[row].ravel().tolist(),
            "score": float(totals[row]),
            "center": centre[row].tolist(),
            "scale": (extent[row] / SCALE_UNIT).tolist(),
        }
        for row in range(len(triplets))
    ]


def predicted_points(
    annotated: Annotated, results: Sequence[Mapping[str, Any]]
) -> tuple[list[int], NDArray[np.float64]]:
    """The rows of the annotations that have a result, and the results' points (N, K, 3) in the order of these rows.

    Raises:
        UserError: a result has another number of points.
    """
    found = {result["annotation_id"]: result["keypoints"] for result in results}
    count = len(annotated.points)
    for number, values in found.items():
        if len(values) != 3 * count:
            raise UserError(
                f"predictions: annotation {number}: {len(values) // 3} points; expected the {count} of the dataset; "
                "evaluate on a dataset with the points that the network was trained with"
            )
    rows = [row for row, number in enumerate(annotated.people.annotation_id.tolist()) if number in found]
    points = [found[int(annotated.people.annotation_id[row])] for row in rows]
    return rows, np.array(points, np.float64).reshape(-1, count, 3)


def evaluate_keypoints(annotated: Annotated, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluate predictions in annotated boxes.

    Returns:
        "all": {measure: value} of `tcformer.metrics.wholebody.STATS`, by pycocotools with the sigmas of the dataset;
        "oks": mean OKS of the objects with a labelled point, one without a result counts as 0; "nme", if the dataset
        names two points to normalise by: the mean over the objects on which both are labelled of the mean distance of
        the labelled points over the distance of the two. Values are None if no object counts.

    Raises:
        UserError: see `predicted_points`.
    """
    rows, points = predicted_points(annotated, results)
    people, sigmas = annotated.people, np.array(annotated.points.sigmas)
    metrics: dict[str, Any] = {"all": _average_precision(annotated, results, sigmas)}
    truth, labelled = people.keypoints[rows, :, :2], people.keypoints[rows, :, 2] > 0
    counted = int((~people.crowd & (people.keypoints[..., 2] > 0).any(1)).sum())
    chosen = labelled.any(1) & ~people.crowd[rows]
    similarity = oks(
        points[chosen, :, :2], truth[chosen], people.area[rows][chosen], labelled[chosen], sigmas
    )  # (objects with a result,)
    metrics["oks"] = float(similarity.sum()) / counted if counted else None
    if annotated.points.normalise is not None:
        unit = reference_lengths(annotated)[rows]
        measured = chosen & (unit > 0)
        distance = np.linalg.norm(points[measured, :, :2] - truth[measured], axis=-1)
        means = (distance * labelled[measured]).sum(1) / labelled[measured].sum(1) / unit[measured]
        metrics["nme"] = float(means.mean()) if len(means) else None
    return metrics


def reference_lengths(annotated: Annotated) -> NDArray[np.float64]:
    """(N,) the length that errors of each object are divided by, pixels; 0 where it is not known.

    It is the distance between the points of `PointSet.normalise`, or without these the longer side of the box.
    """
    people, pair = annotated.people, annotated.points.normalise
    if pair is None:
        return people.box[:, 2:].max(1, initial=0.0)
    a, b = people.keypoints[:, pair[0]], people.keypoints[:, pair[1]]
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    return np.where(both, np.linalg.norm(a[:, :2] - b[:, :2], axis=-1), 0.0)


def _average_precision(
    annotated: Annotated, results: Sequence[Mapping[str, Any]], sigmas: NDArray[np.float64]
) -> dict[str, float | None]:
    found = []
    for index, result in enumerate(results):
        points = np.array(result["keypoints"], np.float64).reshape(-1, 3)
        area = float(np.prod(np.ptp(points[:, :2], axis=0)))
        record = {"id": index + 1, "image_id": result["image_id"], "category_id": 1, "iscrowd": 0, "area": area}
        found.append({**record, "keypoints": points.ravel(), "score": result["score"]})
    return coco_measures(annotated.people, found, sigmas)


def mean_results(mean: NDArray[np.float64], crops: Crops, category_id: int) -> list[dict[str, Any]]:
    """The mean (K, 2) of `mean_points` placed in boxes, as results."""
    triplets = placed_points(mean, crops)
    return [
        {
            "image_id": int(crops.image_id[row]),
            "category_id": category_id,
            "annotation_id": int(crops.annotation_id[row]),
            "keypoints": triplets[row].ravel().tolist(),
            "score": float(crops.score[row]),
        }
        for row in range(len(crops))
    ]

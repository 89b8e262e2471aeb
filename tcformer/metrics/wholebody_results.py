"""Results in the COCO-WholeBody result format, from decoded heat maps, as mmpose 0.x writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tcformer.data.crops import SCALE_UNIT, to_image
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, PART_FIELDS, PARTS


def instance_score(scores: NDArray, box_score: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Score of each person: the box score times the mean of the point scores above the threshold.

    Args:
        scores: (B, K) scores of the points.
        box_score: (B,) scores of the boxes.
        threshold: point scores above it count.

    Returns:
        (B,); 0 if no point score is above the threshold.
    """
    counted = scores > threshold
    mean = np.where(counted, scores, 0).sum(-1, dtype=np.float64) / np.maximum(counted.sum(-1), 1)
    return mean * np.asarray(box_score, np.float64)


def make_results(
    inside: Tensor,
    scores: Tensor,
    input_size: tuple[int, int],
    batch: Mapping[str, Tensor],
    threshold: float,
    predicted: NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:
    """Make the results of a batch of decoded crops.

    A result has the fields of the official format (image_id, category_id, the five lists of x, y, score triplets in
    image pixels, score). It also has, as in mmpose, the crop as center (pixels) and scale (units of 200 pixels). It has
    no bbox, because pycocotools would use the area of the bbox instead of that of the body points. annotation_id is the
    annotated person whose box was cropped, or 0 for a detection.

    Args:
        inside: (B, K, 2) x, y in pixels of the network's input.
        scores: (B, K).
        input_size: (height, width) of the network's input.
        batch: the samples: centre, extent, score, image_id, annotation_id.
        threshold: point scores above it count in the score of the result.
        predicted: (K,) indices of the points among the 133; all if None. The others are (0, 0) with the score 0.
    """
    centre, extent = (batch[key].cpu().numpy().astype(np.float64) for key in ("centre", "extent"))
    points = to_image(inside.cpu().numpy(), centre, extent, input_size)
    values = scores.cpu().numpy()
    totals = instance_score(values, batch["score"].cpu().numpy(), threshold)
    triplets = np.zeros((len(points), NUM_KEYPOINTS, 3))
    triplets[:, slice(None) if predicted is None else predicted] = np.concatenate([points, values[..., None]], -1)
    return [
        make_result(
            triplets[i],
            float(totals[i]),
            image_id=int(batch["image_id"][i]),
            annotation_id=int(batch["annotation_id"][i]),
            centre=centre[i],
            extent=extent[i],
        )
        for i in range(len(triplets))
    ]


def make_result(
    triplets: NDArray,
    score: float,
    *,
    image_id: int,
    annotation_id: int,
    centre: NDArray,
    extent: NDArray,
) -> dict[str, Any]:
    """Make one result (see `make_results`) from (133, 3) x, y, score in image pixels.

    Args:
        triplets: (133, 3) x, y in image pixels, score.
        score: of the result.
        image_id: of the image.
        annotation_id: of the annotated person whose box was cropped; 0 for a detection.
        centre: (2,) x, y of the crop's centre in image pixels.
        extent: (2,) width, height of the crop in image pixels.
    """
    return {
        "image_id": image_id,
        "category_id": 1,
        "annotation_id": annotation_id,
        **{PART_FIELDS[part]: triplets[PARTS[part]].ravel().tolist() for part in PARTS},
        "score": score,
        "center": centre.tolist(),
        "scale": (extent / SCALE_UNIT).tolist(),
    }


def keypoints_of(result: Mapping[str, Any]) -> NDArray[np.float64]:
    """The (133, 3) triplets of a result or an annotation."""
    return np.concatenate([result[PART_FIELDS[part]] for part in PARTS], dtype=np.float64).reshape(NUM_KEYPOINTS, 3)

"""Results in the COCO-WholeBody result format, from decoded heat maps, as mmpose 0.x writes them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tcformer.checks import is_count, is_number, numbers_of_list
from tcformer.data.crops import SCALE_UNIT, to_image
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, PART_FIELDS, PARTS
from tcformer.errors import UserError


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


#: The field of the score by which the results of each part are ranked. Without it they are ranked by "score".
SCORE_FIELDS: Final = {part: "score" if part == "body" else f"{part}_score" for part in (*PARTS, "wholebody")}


def checked_points(record: object, index: int, images: Container[int], source: str) -> NDArray[np.float64]:
    """The (133, 3) triplets of a result of a file, after checking all fields that the evaluation reads.

    Args:
        record: the result.
        index: its place in the file, for the message.
        images: ids of the annotated images.
        source: the file, for the message.

    Raises:
        UserError: a field is missing or has another form, or the result is of another image or category.
    """
    where = f"{source}: record {index} (counted from 0)"
    if not isinstance(record, Mapping):
        raise UserError(f"{where}: expected an object, found {record!r:.60}; write it in the COCO-WholeBody format")
    for field in ("image_id", "score", *PART_FIELDS.values()):
        if field not in record:
            raise UserError(f"{where} has no '{field}'; write it as in the COCO-WholeBody result format")
    if not is_count(record["image_id"], 0) or record["image_id"] not in images:
        raise UserError(
            f"{where}: image_id {record['image_id']!r:.60} is not among the annotated images; evaluate against their "
            "file"
        )
    category = record.get("category_id", 1)
    if not is_count(category, 0) or category != 1:
        raise UserError(f"{where}: field 'category_id': expected 1 (person), found {category!r:.60}; remove the record")
    for field in SCORE_FIELDS.values():
        if field in record and not is_number(record[field]):
            raise UserError(
                f"{where}: field '{field}': expected finite numbers, found {record[field]!r:.60}; write one"
            )
    parts = []
    for part, field in PART_FIELDS.items():
        expected, given = 3 * (PARTS[part].stop - PARTS[part].start), record[field]
        values = given if isinstance(given, np.ndarray) else numbers_of_list(given)
        if values is None or values.shape != (expected,):
            found = f"{len(given)}" if isinstance(given, list) and len(given) != expected else f"{given!r:.60}"
            raise UserError(
                f"{where}: field '{field}': expected {expected} numbers (x, y, confidence of each point), "
                f"found {found}; write them all"
            )
        parts.append(values)
    points = np.concatenate(parts, dtype=np.float64).reshape(NUM_KEYPOINTS, 3)
    if not np.isfinite(points).all():
        raise UserError(f"{where}: expected finite numbers, found NaN or infinity; write numbers")
    return points


def keypoints_of(result: Mapping[str, Any]) -> NDArray[np.float64]:
    """The (133, 3) triplets of a result or an annotation."""
    return np.concatenate([result[PART_FIELDS[part]] for part in PARTS], dtype=np.float64).reshape(NUM_KEYPOINTS, 3)

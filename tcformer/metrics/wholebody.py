"""Average precision and recall of whole-body results by the official COCO-WholeBody V1.0 protocol.

The protocol is six independent evaluations (body, foot, face, left hand, right hand, all 133 points). Each is a COCO
keypoint evaluation (pycocotools) with these changes:
- The points, their sigmas and the score are those of the part. A missing part score is replaced by `score`.
- A person without a labelled point of the part is ignored, and so is a crowd.
- A result without a point of the part with a confidence above 0 is dropped.
- The OKS of every part uses the area of the whole person's segment. The size of an unmatched result is that of the box
  around its body points, even if it has a `bbox`.

Publications give one value for hands: the mean of the left and the right hand, as the authors of the dataset answer in
issue 38 of github.com/jin-s13/COCO-WholeBody.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import is_count, read_json
from tcformer.data.wholebody.dataset import Crops, People, annotated_crops, load_people
from tcformer.data.wholebody.keypoints import PARTS, SIGMAS
from tcformer.errors import UserError
from tcformer.files import user_path
from tcformer.metrics.oks import oks
from tcformer.metrics.wholebody_results import SCORE_FIELDS, checked_points, make_result

if TYPE_CHECKING:
    from pycocotools.coco import COCO

#: Metrics of a part: mean over OKS .50:.05:.95, at .50, at .75, of medium (32² to 96² pixels) and of large persons.
STATS: Final = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

_EVALUATED = {**PARTS, "wholebody": slice(0, len(SIGMAS))}

Annotations: TypeAlias = People | Mapping[str, Any] | str | Path
Results: TypeAlias = Sequence[Mapping[str, Any]] | str | Path


def evaluate_wholebody(gt: Annotations, results: Results) -> dict[str, dict[str, float | None]]:
    """Evaluate results against annotations.

    Args:
        gt: path or content of an official annotation file, or what `load_people` returned for it.
        results: path or content of a result file: results with image_id, category_id 1, score (optionally foot_score,
            face_score, lefthand_score, righthand_score, wholebody_score) and the five lists of x, y, confidence
            triplets in pixels. Only the 20 best of an image count.

    Returns:
        {"body" | "foot" | "face" | "lefthand" | "righthand" | "wholebody" | "hand": {metric: value}} with the metrics
        of `STATS` in [0, 1], or None if no annotation counts (pycocotools gives -1). "hand" is the mean of both hands,
        the published value, or None if that of a hand is None.

    Raises:
        UserError: a file does not exist or is not JSON, or a result breaks the format.
    """
    people = gt if isinstance(gt, People) else load_people(gt)
    records = _load(results)
    source = _name_of(results)
    points = [checked_points(record, index, people.images, source) for index, record in enumerate(records)]
    measures = {part: _evaluate_part(part, people, records, points) for part in _EVALUATED}
    return {**measures, "hand": _mean_of_hands(measures["lefthand"], measures["righthand"])}


def _mean_of_hands(left: dict[str, float | None], right: dict[str, float | None]) -> dict[str, float | None]:
    pairs = {name: (left[name], right[name]) for name in STATS}
    return {name: None if a is None or b is None else (a + b) / 2 for name, (a, b) in pairs.items()}


def _name_of(source: Results) -> str:
    """What messages call the results."""
    return str(source) if isinstance(source, str | Path) else "results"


def _load(source: Results) -> Sequence[Mapping[str, Any]]:
    records = (
        read_json(user_path(source), "give the path of a result file") if isinstance(source, str | Path) else source
    )
    if not isinstance(records, Sequence) or isinstance(records, str | bytes):
        raise UserError(f"{_name_of(source)}: expected a list of records, found {type(records).__name__}; write a list")
    return records


def _body_area(points: NDArray[np.float64]) -> float:
    body = points[PARTS["body"], :2]
    return float(np.prod(body.max(0) - body.min(0)))


def _evaluate_part(
    part: str, people: People, records: Sequence[Mapping[str, Any]], points: list[NDArray[np.float64]]
) -> dict[str, float | None]:
    rows = _EVALUATED[part]
    found = [
        {
            "id": index + 1,
            "image_id": item["image_id"],
            "category_id": 1,
            "iscrowd": 0,
            "area": _body_area(values),
            "keypoints": values[rows].ravel(),
            "score": item.get(SCORE_FIELDS[part], item["score"]),
        }
        for index, (item, values) in enumerate(zip(records, points))
        if (values[rows, 2] > 0).any()
    ]
    return coco_measures(people, found, SIGMAS[rows], rows)


def coco_measures(
    people: People,
    found: list[dict[str, Any]],
    sigmas: NDArray[np.float64],
    rows: slice | NDArray[np.int64] = slice(None),
) -> dict[str, float | None]:
    """COCO's keypoint evaluation, see `STATS`.

    Args:
        people: the annotations.
        found: results with id, image_id, category_id 1, iscrowd 0, area, keypoints and score.
        sigmas: (K,) of the evaluated points.
        rows: the evaluated points among those of the annotations.
    """
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image_id} for image_id in people.images]
    truth = [
        {
            "id": i + 1,  # pycocotools takes the id 0, which a file may have, for no match
            "image_id": int(people.image_id[i]),
            "category_id": 1,
            "iscrowd": int(people.crowd[i]),
            "area": float(people.area[i]),
            "bbox": people.box[i].tolist(),
            "keypoints": people.keypoints[i, rows].ravel(),
            "num_keypoints": int((people.keypoints[i, rows, 2] > 0).sum()),
        }
        for i in range(len(people))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(images, truth), _coco(images, found), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) if value > -1 else None for name, value in zip(STATS, evaluation.stats)}


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = {
        "images": images,
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    index.createIndex()
    return index


def wholebody_oks(gt: Annotations, results: Results) -> float | None:
    """Mean OKS over all 133 points of predictions made in annotated boxes.

    Each annotated person who is not a crowd and has a labelled point is compared with the result that has their
    annotation_id, over the labelled points and with the area of the person's segment. A person without a result counts
    as 0.

    Args:
        gt: see `evaluate_wholebody`.
        results: see `evaluate_wholebody`, before duplicates are removed.

    Returns:
        A number in [0, 1], or None if no person has a labelled point.

    Raises:
        UserError: no result has an annotation_id, because the predictions were made from detections, or a result breaks
            the format.
    """
    people = gt if isinstance(gt, People) else load_people(gt)
    image_of = dict(zip(people.annotation_id.tolist(), people.image_id.tolist()))
    predicted: dict[int, NDArray[np.float64]] = {}
    source = _name_of(results)
    for index, record in enumerate(_load(results)):
        points = checked_points(record, index, people.images, source)
        number = record.get("annotation_id", 0)
        if is_count(number, 0) and number == 0:
            continue  # the prediction of a detection
        if not is_count(number, 1) or image_of.get(number) != record["image_id"] or number in predicted:
            raise UserError(
                f"{source}: record {index} (counted from 0): field 'annotation_id': expected the id of an annotated "
                f"person on image {record['image_id']}, each once, found {number!r:.60}; predict in the boxes of these "
                "annotations"
            )
        predicted[number] = points
    if not predicted:
        raise UserError(f"{source}: no record has an annotation_id; predict in ground-truth boxes")
    labelled = people.keypoints[..., 2] > 0
    rows = np.flatnonzero(~people.crowd & labelled.any(1))
    values = [
        oks(
            predicted[number][None, :, :2],
            people.keypoints[i, :, :2],
            people.area[i : i + 1],
            labelled[i : i + 1],
        )[0]
        if (number := int(people.annotation_id[i])) in predicted
        else 0.0
        for i in rows
    ]
    return float(np.mean(values)) if values else None


def mean_pose(people: People) -> NDArray[np.float64]:
    """Mean position of each point in the box of its person, over the persons of `annotated_crops`.

    Returns:
        (133, 2) x, y from the upper left corner of the box, as fractions of its sides; (0.5, 0.5) for a point that is
        labelled nowhere.
    """
    return mean_points(annotated_crops(people))


def mean_points(crops: Crops) -> NDArray[np.float64]:
    """The same as `mean_pose` (K, 2) of any points in annotated boxes."""
    assert crops.keypoints is not None
    labelled = crops.keypoints[:, :, 2] > 0  # (N, K)
    place = (crops.keypoints[:, :, :2] - crops.box[:, None, :2]) / crops.box[:, None, 2:]
    count = labelled.sum(0)[:, None]
    total = np.where(labelled[..., None], place, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def mean_pose_results(pose: NDArray[np.float64], crops: Crops) -> list[dict[str, Any]]:
    """Place the mean pose in every box: the results of the baseline that a network has to beat.

    Args:
        pose: (133, 2) of `mean_pose`.
        crops: the boxes; their scores become those of the results.
    """
    centre = crops.box[:, :2] + 0.5 * crops.box[:, 2:]
    triplets = placed_points(pose, crops)
    return [
        make_result(
            triplets[i],
            float(crops.score[i]),
            image_id=int(crops.image_id[i]),
            annotation_id=int(crops.annotation_id[i]),
            centre=centre[i],
            extent=crops.box[i, 2:],
        )
        for i in range(len(crops))
    ]


def placed_points(mean: NDArray[np.float64], crops: Crops) -> NDArray[np.float64]:
    """x, y, score (N, K, 3) of the points (K, 2) of `mean_points` in every box, with the score 1."""
    points = crops.box[:, None, :2] + mean * crops.box[:, None, 2:]
    return np.concatenate([points, np.ones((*points.shape[:2], 1))], -1)

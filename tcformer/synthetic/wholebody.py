"""Writes a data set of generated people in the on-disk format of COCO-WholeBody V1.0.

annotations/coco_wholebody_{train,val}_v1.0.json, train2017/, val2017/ and
person_detection_results/COCO_val2017_detections_AP_H_56_person.json. Field names, their order and the types
of the values are those of the real files, so that what reads these reads the real ones.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.synthetic.body import (
    BODY_POINTS,
    FACE_POINTS,
    FOOT_POINTS,
    LEFT_HAND_POINTS,
    RIGHT_HAND_POINTS,
    load_body,
)
from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.options import GenerateWholebody, check
from tcformer.synthetic.pose import PoseChoice
from tcformer.synthetic.render import seen_keypoints, visibility
from tcformer.synthetic.scene import Scene, SceneChoice, draw_scene

DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"

_SPLITS = ("train", "val")
# Picture ids are unique over both splits, as COCO's are; annotation ids are picture id * 100 + 1, 2, ...
_FIRST_ID = {"train": 1, "val": 500_001}

# As in the real data: no points on people smaller than this, and no face or hand too small to be marked.
_LEAST_AREA_WITH_POINTS = 400.0  # px^2
_LEAST_AREA = 30.0  # px^2
_LEAST_FACE_SIZE = 8.0  # px, the longer side
_LEAST_HAND_SIZE = 5.0
_LEAST_VISIBLE_SHARE = 0.4  # of a face's or hand's points

_CATEGORY = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": [
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
        "right_knee", "left_ankle", "right_ankle",
    ],
    "skeleton": [
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
        [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
}  # fmt: skip


def generate_wholebody(root: Path, options: GenerateWholebody, map: Map = map) -> None:
    """Write the data set into the folder `root`, which is made if it is missing.

    map(function, items): called with a picklable function and picklable items; a parallel map may be passed,
    and neither its number of processes nor the order in which it works changes a byte.
    """
    check(options)
    for folder in ("annotations", "train2017", "val2017", "person_detection_results"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    counts = {"train": options.train_images, "val": options.val_images}
    items = [(split, index) for split in _SPLITS for index in range(counts[split])]
    results = sorted(map(partial(_make_image, str(root), options), items), key=lambda result: result[0]["id"])
    for split in _SPLITS:
        first = _FIRST_ID[split]
        made = [result for result in results if first <= result[0]["id"] < first + counts[split]]
        content = {
            "info": {
                "description": "Generated people in the format of COCO-WholeBody",
                "url": "",
                "version": "1.0",
                "year": "2020",
                "date_created": "2020/07/01",
            },
            "licenses": [
                {
                    "url": "https://creativecommons.org/publicdomain/zero/1.0/",
                    "id": 1,
                    "name": "CC0 1.0 Universal",
                }
            ],
            "categories": [_CATEGORY],
            "images": [image for image, _, _ in made],
            "annotations": [annotation for _, annotations, _ in made for annotation in annotations],
        }
        (root / f"annotations/coco_wholebody_{split}_v1.0.json").write_text(json.dumps(content))
        if split == "val":
            detections = [detection for _, _, found in made for detection in found]
            (root / DETECTIONS).write_text(json.dumps(detections))


def _make_image(
    root: str, options: GenerateWholebody, item: tuple[str, int]
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw and write one picture; returns its entry in `images`, its annotations and (val) its detections."""
    split, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, _SPLITS.index(split), index])
    scene = draw_scene(load_body(), _choose(options, rng), rng)
    image_id = _FIRST_ID[split] + index
    name = f"{image_id:012d}.jpg"
    write_jpeg(Path(root, f"{split}2017", name), scene.picture.image, options.jpeg_quality)
    height, width = options.image_size
    image = {
        "license": 1,
        "file_name": name,
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": "2020-07-01 00:00:00",
        "flickr_url": "",
        "id": image_id,
    }
    annotations = annotate(scene, image_id)
    detections = _detect(annotations, options.image_size, image_id, rng) if split == "val" else []
    return image, annotations, detections


def _choose(options: GenerateWholebody, rng: np.random.Generator) -> SceneChoice:
    fewest, most = options.people
    weights = 1.0 / np.arange(1, most - fewest + 2)
    people = fewest + int(rng.choice(len(weights), p=weights / weights.sum()))
    return SceneChoice(
        size=options.image_size,
        people=people,
        pose=PoseChoice(variety=options.pose_variety),
        yaw_deg=0.0,
        yaw_spread_deg=options.yaw_deg,
        back_view_fraction=options.back_view_fraction,
        framing="cropped" if rng.uniform() < options.crop_fraction else "whole",
        figure_height=options.figure_height,
        camera_pitch_deg=options.camera_pitch_deg,
        occluder=bool(rng.uniform() < options.occluder_fraction),
        crowd=bool(rng.uniform() < options.crowd_fraction),
        clutter=options.clutter,
        photo_fraction=options.photo_fraction,
        light_range=options.light_range,
        supersampling=options.supersampling,
    )


def annotate(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """COCO-WholeBody annotations of a scene's people: one for each individual of whom enough is seen, one for
    the crowd if there is one."""
    annotations: list[dict[str, Any]] = []
    for index in range(scene.named):
        mask = scene.picture.owner == index
        polygons = _polygons(mask, scene.picture.scale)
        area = sum(_polygon_area(polygon) for polygon in polygons)
        if area < _LEAST_AREA:
            continue
        points, seen = _label_points(scene, index, area)
        identifier = image_id * 100 + len(annotations) + 1
        corners = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        box = [float(value) for value in np.round([x0, y0, x1 - x0, y1 - y0], 2)]
        annotations.append(
            _entry(polygons, round(area, 5), 0, box, image_id, identifier, points, seen, scene.camera.size)
        )
    crowd = np.zeros(scene.camera.size, bool)
    if len(scene.people) > scene.named:
        crowd = _downsample(scene.picture.owner >= scene.named, scene.picture.scale)
    if crowd.sum() >= _LEAST_AREA:
        rows, columns = np.flatnonzero(crowd.any(1)), np.flatnonzero(crowd.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        identifier = image_id * 100 + len(annotations) + 1
        nothing = np.zeros((133, 2)), np.zeros(133, int)
        annotations.append(
            _entry(
                _run_lengths(crowd), float(crowd.sum()), 1, [float(value) for value in box], image_id,
                identifier, *nothing, scene.camera.size,
            )
        )  # fmt: skip
    return annotations


def _label_points(scene: Scene, index: int, area: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Coordinates (133, 2), counted from the centre of the first pixel as in COCO, and visibility (133,):
    0 not labelled, 1 hidden, 2 visible."""
    person, camera = scene.people[index], scene.camera
    world = seen_keypoints(person, camera)
    seen = visibility(world, index, camera, scene.picture)
    points = np.round(camera.project(world) - 0.5, 3)
    height, width = camera.size
    outside = (points < 0).any(1) | (points[:, 0] > width - 1) | (points[:, 1] > height - 1)
    seen[outside] = 0
    if area < _LEAST_AREA_WITH_POINTS:
        seen[:] = 0
    # Nobody marks the hidden eyes and nose of a head that is turned away.
    towards = -camera.rotation[2]
    away = float(person.facing @ towards) < -0.2
    if away:
        seen[:3][seen[:3] == 1] = 0
    for part, least in (
        (FACE_POINTS, _LEAST_FACE_SIZE),
        (LEFT_HAND_POINTS, _LEAST_HAND_SIZE),
        (RIGHT_HAND_POINTS, _LEAST_HAND_SIZE),
    ):
        visible = (seen[part] == 2).mean() >= _LEAST_VISIBLE_SHARE
        if not visible or np.ptp(points[part], axis=0).max() < least:
            seen[part] = 0
    points[seen == 0] = 0
    return points, seen


def _entry(
    segmentation: Any,
    area: float,
    crowd: int,
    box: list[float],
    image_id: int,
    identifier: int,
    points: NDArray[np.float64],
    seen: NDArray[np.int64],
    size: tuple[int, int],
) -> dict[str, Any]:
    """One annotation with the fields, their order and the types of COCO-WholeBody V1.0."""
    body: list[int] = []
    for (x, y), v in zip(points[BODY_POINTS], seen[BODY_POINTS], strict=True):
        body += [round(float(x)), round(float(y)), int(v)]
    foot = _triplets(points[FOOT_POINTS], 2.0 * (seen[FOOT_POINTS] > 0))
    face = _triplets(points[FACE_POINTS], 1.0 * (seen[FACE_POINTS] > 0))
    left = _triplets(points[LEFT_HAND_POINTS], seen[LEFT_HAND_POINTS])
    right = _triplets(points[RIGHT_HAND_POINTS], seen[RIGHT_HAND_POINTS])
    return {
        "segmentation": segmentation,
        "num_keypoints": int((seen[BODY_POINTS] > 0).sum()),
        "area": area,
        "iscrowd": crowd,
        "keypoints": body,
        "image_id": image_id,
        "bbox": box,
        "category_id": 1,
        "id": identifier,
        "face_box": _part_box(points[FACE_POINTS], seen[FACE_POINTS], size),
        "lefthand_box": _part_box(points[LEFT_HAND_POINTS], seen[LEFT_HAND_POINTS], size),
        "righthand_box": _part_box(points[RIGHT_HAND_POINTS], seen[RIGHT_HAND_POINTS], size),
        "lefthand_kpts": left,
        "righthand_kpts": right,
        "face_kpts": face,
        "face_valid": bool((seen[FACE_POINTS] > 0).any()),
        "lefthand_valid": bool((seen[LEFT_HAND_POINTS] > 0).any()),
        "righthand_valid": bool((seen[RIGHT_HAND_POINTS] > 0).any()),
        "foot_valid": bool((seen[FOOT_POINTS] > 0).any()),
        "foot_kpts": foot,
    }


def _triplets(points: NDArray[np.float64], values: NDArray) -> list[float]:
    """x, y, v, x, y, v, ...; labelled points of hands have integer v, 1 or 2, as in the real file."""
    flat: list[float] = []
    for (x, y), v in zip(points, values, strict=True):
        flat += [float(x), float(y), float(v) if v == 0 or values.dtype.kind == "f" else int(v)]
    return flat


def _part_box(points: NDArray[np.float64], seen: NDArray[np.int64], size: tuple[int, int]) -> list[float]:
    """The box xywh of a part's labelled points and a little more, inside the picture; zeros if none."""
    if not seen.any():
        return [0.0, 0.0, 0.0, 0.0]
    labelled = points[seen > 0]
    low, high = labelled.min(0), labelled.max(0)
    margin = 0.05 * (high - low) + 1
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, [size[1], size[0]])
    return [float(value) for value in np.round([*low, *(high - low)], 2)]


def _downsample(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    height, width = mask.shape[0] // scale, mask.shape[1] // scale
    return mask.reshape(height, scale, width, scale).mean((1, 3)) >= 0.5


def _polygons(mask: NDArray[np.bool_], scale: int) -> list[list[float]]:
    """Outlines of a mask (height * scale, width * scale), in pixels of the picture, largest first."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return []
    corner = np.array([columns[0], rows[0]])
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    # Twice as large, so that the outline runs along the border of the samples, not through their centres.
    grown = np.repeat(np.repeat(part, 2, 0), 2, 1)
    contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    result = []
    for contour in contours:
        outline = cv2.approxPolyDP(contour, 0.6 * scale, True)[:, 0].astype(float)
        if len(outline) < 3:
            continue
        polygon = [float(value) for value in np.round(((outline + 0.5) / 2 + corner) / scale, 2).reshape(-1)]
        if _polygon_area(polygon) >= 4:
            result.append(polygon)
    return sorted(result, key=_polygon_area, reverse=True)


def _polygon_area(polygon: list[float]) -> float:
    x, y = np.reshape(polygon, (-1, 2)).T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Uncompressed RLE: lengths of runs of 0, 1, 0, ... down the columns."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *changes, len(flat)])
    counts = [int(length) for length in lengths]
    return {
        "counts": counts if not flat[0] else [0, *counts],
        "size": [int(mask.shape[0]), int(mask.shape[1])],
    }


def _detect(
    annotations: list[dict[str, Any]], size: tuple[int, int], image_id: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """What a person detector might find: shifted true boxes with high scores, some duplicates and false
    alarms with low ones, the best first."""
    height, width = size
    boxes: list[tuple[list[float], float]] = []
    for annotation in annotations:
        if annotation["iscrowd"]:
            continue
        x, y, w, h = annotation["bbox"]

        def shifted(spread: float, x: float = x, y: float = y, w: float = w, h: float = h) -> list[float]:
            return [
                x + rng.normal(0, spread) * w,
                y + rng.normal(0, spread) * h,
                w * np.exp(rng.normal(0, spread)),
                h * np.exp(rng.normal(0, spread)),
            ]

        boxes.append((shifted(0.02), float(1 - rng.beta(1, 25))))
        if rng.uniform() < 0.4:
            boxes.append((shifted(0.12), float(rng.beta(1.2, 6))))
    for _ in range(rng.poisson(1.5)):
        w, h = width * rng.uniform(0.05, 0.4), height * rng.uniform(0.1, 0.6)
        boxes.append(([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h], float(rng.beta(1, 12))))
    result = []
    for (x, y, w, h), score in boxes:
        x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        if x1 - x0 > 2 and y1 - y0 > 2:
            box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
            result.append({"bbox": box, "category_id": 1, "image_id": image_id, "score": score})
    return sorted(result, key=lambda detection: -detection["score"])

"""Write a dataset of generated people in the format of COCO-WholeBody V1.0.

    annotations/coco_wholebody_{train,val}_v1.0.json
    train2017/, val2017/                                                  images
    person_detection_results/COCO_val2017_detections_AP_H_56_person.json

Fields, their order and the types of their values are those of the official files, so that code that reads these files
reads the official ones too.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.data.wholebody.keypoints import NAMES, NUM_KEYPOINTS, PARTS, SKELETON
from tcformer.synthetic.exact import dot, exponential
from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.geometry import Array
from tcformer.synthetic.options import GenerateWholebody, check
from tcformer.synthetic.pose import PoseSpec
from tcformer.synthetic.render import annotated_keypoints, visibility
from tcformer.synthetic.scene import Scene, SceneSpec, draw_scene
from tcformer.synthetic.template_body import load_template_body

_DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"

_SPLITS = ("train", "val")
# Image ids are unique over both splits, as in COCO; annotation ids are image id * 100 + 1, 2, ...
_FIRST_ID = {"train": 1, "val": 500_001}

# As in the official data, small people have no keypoints, and small faces and hands are not labelled.
_LEAST_AREA_WITH_POINTS = 400.0  # square pixels
_LEAST_AREA = 30.0  # square pixels
_LEAST_FACE_SIZE = 8.0  # of the longer side, pixels
_LEAST_HAND_SIZE = 5.0
_LEAST_VISIBLE_SHARE = 0.4  # of the keypoints of a face or hand

_NUM_BODY = PARTS["body"].stop
_CATEGORY = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": list(NAMES[:_NUM_BODY]),
    "skeleton": [[first + 1, second + 1] for first, second in SKELETON if max(first, second) < _NUM_BODY],
}


class RunLengths(TypedDict):
    """A mask as COCO's uncompressed run-length encoding."""

    counts: list[int]
    size: list[int]


class Annotation(TypedDict):
    """One person or crowd, with the fields of COCO-WholeBody V1.0 in their order."""

    segmentation: list[list[float]] | RunLengths
    num_keypoints: int
    area: float
    iscrowd: int
    keypoints: list[int]
    image_id: int
    bbox: list[float]
    category_id: int
    id: int
    face_box: list[float]
    lefthand_box: list[float]
    righthand_box: list[float]
    lefthand_kpts: list[float]
    righthand_kpts: list[float]
    face_kpts: list[float]
    face_valid: bool
    lefthand_valid: bool
    righthand_valid: bool
    foot_valid: bool
    foot_kpts: list[float]


class Detection(TypedDict):
    """One box of a person detector."""

    bbox: list[float]
    category_id: int
    image_id: int
    score: float


class ImageLabels(NamedTuple):
    """What the files of a split say about one image."""

    image_id: int
    entry: dict[str, object]
    """Its entry in `images`."""
    annotations: list[Annotation]
    detections: list[Detection]
    """Empty in the training set."""


def generate_wholebody(root: Path, options: GenerateWholebody, map: Map = map) -> None:
    """Write the dataset into a folder, which is created if it is missing.

    Args:
        root: the folder.
        options: number and kind of the images.
        map: applies a picklable function to picklable items, possibly in parallel and in any order.

    Raises:
        UserError: if a value of the options is outside its limits.
    """
    check(options)
    for folder in ("annotations", "train2017", "val2017", "person_detection_results"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    counts = {"train": options.train_images, "val": options.val_images}
    items = [(split, index) for split in _SPLITS for index in range(counts[split])]
    results = sorted(map(partial(_make_image, str(root), options), items), key=lambda labels: labels.image_id)
    for split in _SPLITS:
        first = _FIRST_ID[split]
        made = [labels for labels in results if first <= labels.image_id < first + counts[split]]
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
            "images": [labels.entry for labels in made],
            "annotations": [annotation for labels in made for annotation in labels.annotations],
        }
        (root / f"annotations/coco_wholebody_{split}_v1.0.json").write_text(json.dumps(content))
        if split == "val":
            detections = [detection for labels in made for detection in labels.detections]
            (root / _DETECTIONS).write_text(json.dumps(detections))


def _make_image(root: str, options: GenerateWholebody, item: tuple[str, int]) -> ImageLabels:
    """Render and write one image; the item is its split and index."""
    split, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, _SPLITS.index(split), index])
    scene = draw_scene(load_template_body(), _sample_spec(options, rng), rng)
    image_id = _FIRST_ID[split] + index
    name = f"{image_id:012d}.jpg"
    write_jpeg(Path(root, f"{split}2017", name), scene.rendering.image, options.jpeg_quality)
    height, width = options.image_size
    entry: dict[str, object] = {
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
    detections = _simulate_detections(annotations, options.image_size, image_id, rng) if split == "val" else []
    return ImageLabels(image_id, entry, annotations, detections)


def _sample_spec(options: GenerateWholebody, rng: np.random.Generator) -> SceneSpec:
    """What an image shows."""
    fewest, most = options.people
    weights = 1.0 / np.arange(1, most - fewest + 2)
    people = fewest + int(rng.choice(len(weights), p=weights / weights.sum()))
    return SceneSpec(
        size=options.image_size,
        people=people,
        pose=PoseSpec(variety=options.pose_variety),
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


def annotate(scene: Scene, image_id: int) -> list[Annotation]:
    """Annotations of a scene: one of each individual that is visible enough, and one of the crowd if there is one."""
    annotations: list[Annotation] = []
    for index in range(scene.num_individuals):
        mask = scene.rendering.owner == index
        polygons = _polygons(mask, scene.rendering.scale)
        area = sum(_polygon_area(polygon) for polygon in polygons)
        if area < _LEAST_AREA:
            continue
        points, labels = _label_keypoints(scene, index, area)
        identifier = image_id * 100 + len(annotations) + 1
        corners = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        box = [float(value) for value in np.round([x0, y0, x1 - x0, y1 - y0], 2)]
        annotations.append(
            _annotation(polygons, round(area, 5), 0, box, image_id, identifier, points, labels, scene.camera.size)
        )
    crowd = np.zeros(scene.camera.size, bool)
    if len(scene.people) > scene.num_individuals:
        crowd = _downsample(scene.rendering.owner >= scene.num_individuals, scene.rendering.scale)
    if crowd.sum() >= _LEAST_AREA:
        rows, columns = np.flatnonzero(crowd.any(1)), np.flatnonzero(crowd.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        identifier = image_id * 100 + len(annotations) + 1
        annotations.append(
            _annotation(
                segmentation=_run_lengths(crowd),
                area=float(crowd.sum()),
                crowd=1,
                box=[float(value) for value in box],
                image_id=image_id,
                identifier=identifier,
                points=np.zeros((NUM_KEYPOINTS, 2)),
                labels=np.zeros(NUM_KEYPOINTS, int),
                size=scene.camera.size,
            )
        )
    return annotations


def _label_keypoints(scene: Scene, index: int, area: float) -> tuple[Array, NDArray[np.int64]]:
    """Label the keypoints of an individual that covers `area` square pixels.

    Returns:
        Coordinates (133, 2), pixels; as in COCO the centre of the first pixel is (0, 0). And labels (133,): 0: not
        labelled, 1: hidden, 2: visible.
    """
    person, camera = scene.people[index], scene.camera
    world = annotated_keypoints(person, camera)
    labels = visibility(world, index, camera, scene.rendering)
    points = np.round(camera.project(world) - 0.5, 3)
    height, width = camera.size
    outside = (points < 0).any(1) | (points[:, 0] > width - 1) | (points[:, 1] > height - 1)
    labels[outside] = 0
    if area < _LEAST_AREA_WITH_POINTS:
        labels[:] = 0
    # Annotators do not mark the hidden eyes and nose of a head that is turned away.
    towards = -camera.rotation[2]
    away = dot(person.facing, towards) < -0.2
    if away:
        labels[:3][labels[:3] == 1] = 0
    for name, least in (
        ("face", _LEAST_FACE_SIZE),
        ("lefthand", _LEAST_HAND_SIZE),
        ("righthand", _LEAST_HAND_SIZE),
    ):
        part = PARTS[name]
        visible = (labels[part] == 2).mean() >= _LEAST_VISIBLE_SHARE
        if not visible or np.ptp(points[part], axis=0).max() < least:
            labels[part] = 0
    points[labels == 0] = 0
    return points, labels


def _annotation(
    segmentation: list[list[float]] | RunLengths,
    area: float,
    crowd: int,
    box: list[float],
    image_id: int,
    identifier: int,
    points: Array,
    labels: NDArray[np.int64],
    size: tuple[int, int],
) -> Annotation:
    """One annotation, from keypoints (133, 2) and labels (133,) in an image of height and width `size`."""
    body, foot, face = PARTS["body"], PARTS["foot"], PARTS["face"]
    left, right = PARTS["lefthand"], PARTS["righthand"]
    body_triplets: list[int] = []
    for (x, y), v in zip(points[body], labels[body], strict=True):
        body_triplets += [round(float(x)), round(float(y)), int(v)]
    return {
        "segmentation": segmentation,
        "num_keypoints": int((labels[body] > 0).sum()),
        "area": area,
        "iscrowd": crowd,
        "keypoints": body_triplets,
        "image_id": image_id,
        "bbox": box,
        "category_id": 1,
        "id": identifier,
        "face_box": _part_box(points[face], labels[face], size),
        "lefthand_box": _part_box(points[left], labels[left], size),
        "righthand_box": _part_box(points[right], labels[right], size),
        "lefthand_kpts": _triplets(points[left], labels[left]),
        "righthand_kpts": _triplets(points[right], labels[right]),
        "face_kpts": _triplets(points[face], 1.0 * (labels[face] > 0)),
        "face_valid": bool((labels[face] > 0).any()),
        "lefthand_valid": bool((labels[left] > 0).any()),
        "righthand_valid": bool((labels[right] > 0).any()),
        "foot_valid": bool((labels[foot] > 0).any()),
        "foot_kpts": _triplets(points[foot], 2.0 * (labels[foot] > 0)),
    }


def _triplets(points: Array, values: NDArray) -> list[float]:
    """x, y, v, x, y, v, ...; labelled points of hands have an integer v, 1 or 2, as in the official file."""
    flat: list[float] = []
    for (x, y), v in zip(points, values, strict=True):
        flat += [float(x), float(y), float(v) if v == 0 or values.dtype.kind == "f" else int(v)]
    return flat


def _part_box(points: Array, labels: NDArray[np.int64], size: tuple[int, int]) -> list[float]:
    """The box x, y, width, height of the labelled points with a small margin, inside the image; zeros if none is."""
    if not labels.any():
        return [0.0, 0.0, 0.0, 0.0]
    labelled = points[labels > 0]
    low, high = labelled.min(0), labelled.max(0)
    margin = 0.05 * (high - low) + 1
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, [size[1], size[0]])
    return [float(value) for value in np.round([*low, *(high - low)], 2)]


def _downsample(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """A mask of samples as one of pixels: true where at least half of a pixel's samples are."""
    height, width = mask.shape[0] // scale, mask.shape[1] // scale
    return mask.reshape(height, scale, width, scale).mean((1, 3)) >= 0.5


def _polygons(mask: NDArray[np.bool_], scale: int) -> list[list[float]]:
    """Outlines of a mask (height * scale, width * scale), in pixels of the image, the largest first."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return []
    corner = np.array([columns[0], rows[0]])
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    # Doubled in size, so that the outline runs along the borders of the samples and not through their centres.
    doubled = np.repeat(np.repeat(part, 2, 0), 2, 1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
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
    """Area of a polygon x, y, x, y, ..., square pixels."""
    x, y = np.reshape(polygon, (-1, 2)).T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _run_lengths(mask: NDArray[np.bool_]) -> RunLengths:
    """A mask as the lengths of its runs of 0, 1, 0, ..., column by column."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *changes, len(flat)])
    counts = [int(length) for length in lengths]
    return {
        "counts": counts if not flat[0] else [0, *counts],
        "size": [int(mask.shape[0]), int(mask.shape[1])],
    }


def _simulate_detections(
    annotations: list[Annotation], size: tuple[int, int], image_id: int, rng: np.random.Generator
) -> list[Detection]:
    """What a person detector might find, the highest score first.

    These are shifted true boxes with high scores, and some duplicates and false positives with low scores.
    """
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
                w * exponential(rng.normal(0, spread)),
                h * exponential(rng.normal(0, spread)),
            ]

        boxes.append((shifted(0.02), float(1 - rng.beta(1, 25))))
        if rng.uniform() < 0.4:
            boxes.append((shifted(0.12), float(rng.beta(1.2, 6))))
    for _ in range(rng.poisson(1.5)):
        w, h = width * rng.uniform(0.05, 0.4), height * rng.uniform(0.1, 0.6)
        boxes.append(([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h], float(rng.beta(1, 12))))
    result: list[Detection] = []
    for (x, y, w, h), score in boxes:
        x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        if x1 - x0 > 2 and y1 - y0 > 2:
            box = [round(float(value), 3) for value in (x0, y0, x1 - x0, y1 - y0)]
            result.append({"bbox": box, "category_id": 1, "image_id": image_id, "score": round(score, 6)})
    return sorted(result, key=lambda detection: -detection["score"])

"""The generated dataset against the format of COCO-WholeBody V1.0."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tcformer.synthetic import GenerateWholebody, generate_wholebody

Options = Callable[..., GenerateWholebody]

PARTS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


def load(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / f"annotations/coco_wholebody_{split}_v1.0.json").read_text())


def annotations(root: Path) -> list[dict[str, Any]]:
    return [a for split in ("train", "val") for a in load(root, split)["annotations"]]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def shuffled(function: Callable, items: Iterable) -> list:
    order = list(items)
    random.Random(0).shuffle(order)
    return [function(item) for item in order]


def test_same_bytes_in_any_order(wholebody: Path, wholebody_options: Options, tmp_path: Path) -> None:
    generate_wholebody(tmp_path, wholebody_options(), map=shuffled)
    assert files(tmp_path) == files(wholebody)


@pytest.mark.slow
def test_same_bytes_from_two_processes(wholebody: Path, wholebody_options: Options, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        generate_wholebody(tmp_path, wholebody_options(), map=pool.map)
    assert files(tmp_path) == files(wholebody)


def test_an_image_does_not_depend_on_how_many_there_are(
    wholebody: Path, wholebody_options: Options, tmp_path: Path
) -> None:
    generate_wholebody(tmp_path, wholebody_options(train_images=1, val_images=1))
    fewer, more = files(tmp_path), files(wholebody)
    images = [name for name in fewer if name.endswith(".jpg")]
    assert len(images) == 2
    assert all(fewer[name] == more[name] for name in images)


def test_another_seed_gives_other_people(wholebody: Path, wholebody_options: Options, tmp_path: Path) -> None:
    generate_wholebody(tmp_path, wholebody_options(train_images=1, val_images=0, seed=4))
    name = "train2017/000000000001.jpg"
    assert (tmp_path / name).read_bytes() != (wholebody / name).read_bytes()


def test_images_exist_and_have_the_stated_size(wholebody: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        images = load(wholebody, split)["images"]
        assert len(images) == count == len(list((wholebody / f"{split}2017").glob("*.jpg")))
        for entry in images:
            assert entry["file_name"] == f"{entry['id']:012d}.jpg"
            image = cv2.imread(str(wholebody / f"{split}2017" / entry["file_name"]))
            assert image.shape == (entry["height"], entry["width"], 3) == (160, 192, 3)
            assert 25 < image.mean() < 230
            assert image.std() > 10


def test_ids_are_unique_and_positive(wholebody: Path) -> None:
    images = [image["id"] for split in ("train", "val") for image in load(wholebody, split)["images"]]
    entries = annotations(wholebody)
    ids = [a["id"] for a in entries]
    assert len(set(images)) == len(images) and len(set(ids)) == len(ids)
    assert min(images) > 0 and min(ids) > 0
    assert {a["image_id"] for a in entries} <= set(images)


def test_labelled_points_and_boxes_lie_inside_the_image(wholebody: Path) -> None:
    for a in annotations(wholebody):
        for part, count in PARTS.items():
            points = np.reshape(a[part], (count, 3))
            labelled = points[:, 2] > 0
            assert (points[~labelled] == 0).all()
            assert (points[labelled, :2] >= 0).all()
            assert (points[labelled, :2] <= [191, 159]).all()
        for name in ("bbox", "face_box", "lefthand_box", "righthand_box"):
            x, y, w, h = a[name]
            assert min(x, y, w, h) >= 0 and x + w <= 192 + 1e-6 and y + h <= 160 + 1e-6
        assert a["bbox"][2] > 0 and a["bbox"][3] > 0


def test_flags_counts_and_boxes_match_the_points(wholebody: Path) -> None:
    entries = annotations(wholebody)
    for a in entries:
        assert a["num_keypoints"] == sum(v > 0 for v in a["keypoints"][2::3])
        for part in ("foot", "face", "lefthand", "righthand"):
            labelled = np.reshape(a[f"{part}_kpts"], (-1, 3))
            labelled = labelled[labelled[:, 2] > 0]
            assert a[f"{part}_valid"] is bool(len(labelled))
            if part == "foot":
                continue
            x, y, w, h = a[f"{part}_box"]
            assert (w > 0) == (h > 0) == bool(len(labelled))
            assert (labelled[:, :2] >= [x, y]).all() and (labelled[:, :2] <= [x + w, y + h]).all()
    for flag in ("foot_valid", "face_valid", "lefthand_valid", "righthand_valid"):
        assert {a[flag] for a in entries} == {True, False}


def test_segments_fit_area_and_box(wholebody: Path) -> None:
    from pycocotools import mask

    for a in annotations(wholebody):
        if a["iscrowd"]:
            segment = mask.frPyObjects(a["segmentation"], 160, 192)
            assert a["num_keypoints"] == 0 and not a["face_valid"]
        else:
            segment = mask.merge(mask.frPyObjects(a["segmentation"], 160, 192))
        assert abs(mask.area(segment) - a["area"]) <= 0.1 * a["area"] + 12
        # Finger tips narrower than a pixel are lost in pycocotools' mask.
        np.testing.assert_allclose(mask.toBbox(segment), a["bbox"], atol=3)
    assert {a["iscrowd"] for a in annotations(wholebody)} == {0, 1}


def test_left_is_right_of_right_in_a_frontal_view(wholebody_options: Options, tmp_path: Path) -> None:
    frontal = wholebody_options(
        train_images=6, val_images=0, yaw_deg=5.0, back_view_fraction=0.0, pose_variety=0.0, people=(1, 1),
        crop_fraction=0.0, occluder_fraction=0.0, crowd_fraction=0.0, camera_pitch_deg=0.0,
    )  # fmt: skip
    generate_wholebody(tmp_path, frontal)
    entries = annotations(tmp_path)
    assert len(entries) == 6
    for a in entries:
        body = np.reshape(a["keypoints"], (17, 3))
        for left in range(5, 17, 2):
            assert body[left, 0] > body[left + 1, 0]
        face = np.reshape(a["face_kpts"], (68, 3))
        assert a["face_valid"] and face[0, 0] < face[16, 0]
        foot = np.reshape(a["foot_kpts"], (6, 3))
        assert foot[:3, 0].mean() > foot[3:, 0].mean()
        if a["lefthand_valid"] and a["righthand_valid"]:
            assert a["lefthand_box"][0] > a["righthand_box"][0]
            wrist, hand = body[9, :2], np.reshape(a["lefthand_kpts"], (21, 3))[0, :2]
            assert np.abs(wrist - hand).max() < 0.05 * a["bbox"][3]


def test_truth_given_as_detections_scores_one(wholebody: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(wholebody / "annotations/coco_wholebody_train_v1.0.json"))
    found = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in truth.dataset["annotations"]
        if a["num_keypoints"]
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1.0


def test_detections(wholebody: Path) -> None:
    found = json.loads((wholebody / DETECTIONS).read_text())
    entries = load(wholebody, "val")
    assert {d["image_id"] for d in found} <= {image["id"] for image in entries["images"]}
    for detection in found:
        x, y, w, h = detection["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 192 + 1e-6 and y + h <= 160 + 1e-6
        assert 0 < detection["score"] <= 1
    for a in entries["annotations"]:
        if a["iscrowd"]:
            continue
        overlaps = [(_iou(a["bbox"], d["bbox"]), d["score"]) for d in found if d["image_id"] == a["image_id"]]
        overlap, score = max(overlaps)
        assert overlap > 0.6
        assert any(o > 0.6 and s > 0.6 for o, s in overlaps), (overlap, score)
    assert min(d["score"] for d in found) < 0.4


def _iou(a: list[float], b: list[float]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def test_fields_and_types_are_those_of_the_official_file(wholebody: Path, samples: Path) -> None:
    official, ours = load(samples / "coco_wholebody", "val"), load(wholebody, "train")
    assert list(official) == list(ours)
    assert list(official["info"]) == list(ours["info"])
    assert list(official["licenses"][0]) == list(ours["licenses"][0])
    assert official["categories"] == ours["categories"]
    assert _schema(official["images"][0]) == _schema(ours["images"][0])
    for entry in ours["annotations"]:
        if entry["iscrowd"]:
            continue
        assert _schema(entry) == _schema(official["annotations"][0])
        for part, count in PARTS.items():
            assert len(entry[part]) == 3 * count
    for part in PARTS:
        allowed = _types(official, part)
        assert _types(ours, part) <= allowed, part
    official_found = json.loads((samples / "coco_wholebody" / DETECTIONS).read_text())
    ours_found = json.loads((wholebody / DETECTIONS).read_text())
    assert _schema(official_found[0]) == _schema(ours_found[0])


def _schema(entry: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, type(value).__name__) for key, value in entry.items()]


def _types(content: dict[str, Any], part: str) -> set[tuple[int, str, float | None]]:
    """(position in the triplet, type, value of v) that occur in a part's lists."""
    found: set[tuple[int, str, float | None]] = set()
    for entry in content["annotations"]:
        for position, value in enumerate(entry[part]):
            v = float(value) if position % 3 == 2 else None
            found.add((position % 3, type(value).__name__, v))
    return found

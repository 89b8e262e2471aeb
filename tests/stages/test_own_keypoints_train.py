"""People's own keypoints, trained by params.yaml alone: prepare, finetune, evaluate, visualize, report, predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from ruamel.yaml import YAML

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.long]

LSP = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "right wrist", "right elbow"),
    *("right shoulder", "left shoulder", "left elbow", "left wrist", "neck", "head top"),
)
SKELETON = [[1, 2], [2, 3], [4, 5], [5, 6], [7, 8], [8, 9], [10, 11], [11, 12], [9, 13], [10, 13], [13, 14]]
EPOCHS = {"sample__finetune__keypoints__training__epochs": 2, "sample__finetune__keypoints__training__global_batch": 8}
STAGES = """
import runpy, sys
for stage in ("prepare", "finetune", "evaluate", "visualize"):
    sys.argv = [stage, "keypoints"] + ([] if stage == "visualize" else ["--local"])
    try:
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""
SIZE = {"sample__finetune__keypoints__task__input_size": [64, 64], "sample__evaluate__keypoints__tokens": 4}


def write_people(samples: Path, root: Path, count: int) -> None:
    """14 points of people of LSP-Extended, as a plain COCO file with a second category and names with spaces."""
    joints = scipy.io.loadmat(samples / "lspet/joints.mat")["joints"].transpose(2, 0, 1)
    (root / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for i, path in enumerate(sorted((samples / "lspet/images").glob("*.jpg"))[:count]):
        shutil.copy(path, root / "images")
        with Image.open(path) as image:
            images.append({"id": i, "file_name": path.name, "width": image.width, "height": image.height})
        points = joints[i].copy()
        points[:, 2] = np.where(points[:, 2] > 0, 2, 0)
        people.append({"id": i + 1, "image_id": i, "category_id": 3, "keypoints": points.ravel().tolist()})
    dog = {"id": 1, "name": "dog", "keypoints": ["nose", "tail"]}
    person = {"id": 3, "name": "person", "keypoints": list(LSP), "skeleton": SKELETON}
    content = {"images": images, "annotations": people, "categories": [dog, person]}
    (root / "all people.json").write_text(json.dumps(content))


def write_faces(samples: Path, root: Path) -> None:
    """68 points of the faces of COCO-WholeBody, as .pts files beside images, which 300-W has."""
    content = json.loads((samples / "coco_wholebody/annotations/coco_wholebody_val_v1.0.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    folder = samples / "coco_wholebody/val2017"
    faces = [a for a in content["annotations"] if a["face_valid"] and (folder / names[a["image_id"]]).is_file()]
    assert len(faces) >= 8
    for number, face in enumerate(faces):
        split = root / ("test" if number % 4 == 0 else "train")
        split.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / names[face["image_id"]], split / f"face {number}.jpg")
        points = np.array(face["face_kpts"]).reshape(68, 3)[:, :2] + 1  # .pts files count pixels from 1
        lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
        (split / f"face {number}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")


def run_stages(workplace: Workplace) -> str:
    """All stages of the task, in one process to save time; returns what they printed."""
    return workplace.run("python", "-c", STAGES, OMP_NUM_THREADS="1")


def results(workplace: Workplace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = workplace.folder / "runs/sample/evaluate/keypoints"
    return json.loads((folder / "metrics.json").read_text()), json.loads((folder / "predictions.json").read_text())


def test_14_points_of_people_then_68_points_of_faces(workplace: Workplace, samples: Path) -> None:
    weights = workplace.folder / "runs/sample/finetune/keypoints/model.safetensors"
    initial = workplace.folder / "runs/sample/pretrain/model.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    people, faces = workplace.folder / "people", workplace.folder / "faces"
    write_people(samples, people, 24)
    write_faces(samples, faces)

    command = ("python", "-m", "stages.cli", "keypoints")
    workplace.run(*command, "split", str(people / "all people.json"), "-o", str(people), "--val", "0.25")
    files = ("--train", str(people / "train.json"), "--val", str(people / "val.json"))
    printed = workplace.run(*command, "init", *files, "--images", str(people / "images"), "--category", "person")
    assert "14 points: right ankle" in printed and "6 left/right pairs" in printed
    workplace.set(**EPOCHS, **SIZE)
    printed = run_stages(workplace)
    assert "starts from the backbone of the given weights" in printed and "18 samples" in printed
    metrics, predictions = results(workplace)
    assert len(predictions) == 6 and {len(p["keypoints"]) for p in predictions} == {42}
    assert 0 <= metrics["oks"] <= 1 and 0 < metrics["baseline"]["oks"] < 1 and "nme" not in metrics
    assert metrics["points"]["test"]["all"]["EPE"] > 0 and metrics["tokens"]["stage4"]["density"] > 0
    drawn = workplace.folder / "runs/sample/visualize/keypoints"
    assert all((drawn / f"{name}.png").stat().st_size > 10_000 for name in ("tokens", "extremes"))
    shutil.copy(weights, workplace.folder / "people.safetensors")
    described = workplace.run("python", "-m", "stages.cli", "info", "people.safetensors")
    assert "right ankle - right knee" in described and "left knee - right knee" in described

    predicted = ("python", "-m", "stages.cli", "predict", str(people / "images/im00001.jpg"), "-o", "out")
    workplace.run(*predicted, "--weights", "people.safetensors", "--threshold", "0")
    [record] = json.loads((workplace.folder / "out/predictions.json").read_text())
    assert record["names"] == list(LSP) and len(record["keypoints"]) == 42

    workplace.set(
        sample__data__keypoints__root=str(faces),
        sample__finetune__keypoints__initial="people.safetensors",
        sample__finetune__keypoints__task__train={"annotations": "train", "images": "train"},
        sample__finetune__keypoints__task__val={"annotations": "test", "images": "test"},
        sample__finetune__keypoints__task__category=None,
    )
    printed = run_stages(workplace)
    assert "the initial weights predict 14 other points: the head is new, backbone and neck are kept" in printed
    assert "starts from the backbone and neck of the given weights" in printed
    metrics, predictions = results(workplace)
    assert {len(p["keypoints"]) for p in predictions} == {204}
    assert 0 < metrics["baseline"]["nme"] < metrics["nme"], "two epochs are too few to beat the mean face"
    assert list(metrics["points"]["test"]) == ["all", "jaw", "brows", "nose", "eyes", "mouth"]

    workplace.run("python", "-m", "stages.report")
    report = (workplace.folder / "runs/sample/report/report.md").read_text()
    assert f"{metrics['nme']:.3f}" in report and "Own keypoints, test: each keypoint" in report
    assert YAML(typ="safe").load(workplace.folder / "params.yaml")["sample"]["finetune"]["keypoints"]

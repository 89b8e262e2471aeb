"""A small dataset of keypoints as people label them, and variations of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("left ear", "right ear", "nose tip", "left paw", "right paw")
SKELETON = ((1, 3), (2, 3), (4, 3), (5, 3))


def category(**changes: Any) -> dict[str, Any]:
    return {"id": 3, "name": "cat", "keypoints": list(NAMES), "skeleton": [list(p) for p in SKELETON], **changes}


def content(images: int = 4, **of_category: Any) -> dict[str, Any]:
    """A COCO keypoint file with one object an image, and a dog without points on the first."""
    rng = np.random.default_rng(images)
    annotations: list[dict[str, Any]] = [{"id": 99, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    for number in range(images):
        xy = rng.integers(20, 44, (len(NAMES), 2))
        points = [value for x, y in xy.tolist() for value in (x, y, 2)]
        if number == 1:
            points[6:9] = [0, 0, 0]
        annotations.append({"id": number, "image_id": number, "category_id": 3, "keypoints": points})
    return {
        "images": [{"id": i, "file_name": f"{i} a.jpg", "width": 64, "height": 64} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "dog"}, category(**of_category)],
    }


def write(root: Path, name: str = "train.json", tree: dict[str, Any] | None = None) -> Path:
    """Write an annotation file and its images, below `root`/images; returns the file."""
    tree = content() if tree is None else tree
    (root / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for image in tree["images"]:
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / image["file_name"])
    path = root / name
    path.write_text(json.dumps(tree))
    return path


def options_tree(**changes: Any) -> dict[str, Any]:
    """The options of the task for `write`'s files, as in params.yaml."""
    return {
        "train": {"annotations": "train.json", "images": "images"},
        "val": {"annotations": "val.json", "images": "images"},
        "category": None,
        "points": None,
        "neck": "auto",
        "drop_path": 0.0,
        "input_size": [64, 64],
        "box_padding": 1.25,
        "codec": "unbiased",
        "sigma": 1.5,
        "augmentation": {
            "shift_probability": 0.0,
            "shift": 0.0,
            "flip_probability": 0.5,
            "scale": 0.0,
            "rotation": 0.0,
            "rotation_probability": 0.0,
        },
        **changes,
    }

"""Generated people with 14 keypoints, those of Leeds Sports Pose, to try the task without data of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.wholebody.dataset import Split, annotation_file, detection_file, image_folder, load_people
from tcformer.data.wholebody.keypoints import NAMES
from tcformer.files import atomic_write
from tcformer.synthetic.options import GenerateWholebody

OPTIONS = GenerateWholebody

_LIMBS: Final = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
)
#: The names have spaces, as those of many annotation tools.
POINTS: Final = (*(name.replace("_", " ") for name in _LIMBS), "neck", "nose")
_SKELETON: Final = ((1, 2), (2, 3), (4, 5), (5, 6), (7, 8), (8, 9), (10, 11), (11, 12), (9, 13), (10, 13), (13, 14))


def generate(out: Path, options: GenerateWholebody, map: Callable[..., list[Any]]) -> None:
    """Write train.json, val.json and the image folders train and val below `out`.

    Args:
        out: the folder.
        options: of the people.
        map: applies a function to items in parallel.
    """
    from tcformer.synthetic.wholebody import generate_wholebody

    generate_wholebody(out, options, map=map)
    for split in ("train", "val"):
        _convert(out, split)
    detection_file(out).unlink()
    detection_file(out).parent.rmdir()
    annotation_file(out, "train").parent.rmdir()


def _convert(out: Path, split: Split) -> None:
    """Make a plain COCO keypoint file of the official files of a split."""
    source = annotation_file(out, split)
    people = load_people(source)
    points = _chosen(people.keypoints)
    annotations = [
        {
            "id": int(people.annotation_id[row]),
            "image_id": int(people.image_id[row]),
            "category_id": 1,
            "bbox": people.box[row].tolist(),
            "area": float(people.area[row]),
            "iscrowd": int(people.crowd[row]),
            "num_keypoints": int((points[row, :, 2] > 0).sum()),
            "keypoints": points[row].ravel().tolist(),
        }
        for row in range(len(people))
    ]
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, width, height) in people.images.items()
    ]
    category = {"id": 1, "name": "person", "keypoints": list(POINTS), "skeleton": [list(pair) for pair in _SKELETON]}
    with atomic_write(out / f"{split}.json") as part:
        part.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    source.unlink()
    image_folder(out, split).rename(out / split)


def _chosen(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 14 points (N, 14, 3) of the 133: limbs, the middle of the shoulders as neck, nose."""
    limbs = points[:, [NAMES.index(name) for name in _LIMBS]]
    shoulders = points[:, [NAMES.index("left_shoulder"), NAMES.index("right_shoulder")]]
    seen = shoulders[..., 2].min(1) > 0
    neck = np.where(seen[:, None], shoulders.mean(1), 0.0)
    neck[:, 2] = np.where(seen, 2.0, 0.0)
    chosen = np.concatenate([limbs, neck[:, None], points[:, [NAMES.index("nose")]]], 1)
    chosen[..., 2] = np.where(chosen[..., 2] > 0, 2.0, 0.0)
    return chosen

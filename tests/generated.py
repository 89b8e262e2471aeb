"""A small generated dataset of each task, with people of all kinds, and the SHA-256 of the files in them.

python -m tests.generated FOLDER    generate them below FOLDER and print what `describe` returns
python -m tests.generated --record  write hashes.json, after a change that is meant to change generated data
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tcformer.data.crops import crop_matrix, cut_crop
from tcformer.files import sha256_of_json
from tcformer.synthetic import (
    GenerateFace,
    GenerateImagenet,
    GenerateMesh,
    GenerateWholebody,
    generate_face,
    generate_imagenet,
    generate_mesh,
    generate_wholebody,
)

#: `sha256_of_json` of the `contents` of each set, and the SHA-256 of `crops`.
HASHES = Path(__file__).parent / "tcformer/synthetic/hashes.json"

WHOLEBODY = GenerateWholebody(
    seed=3,
    train_images=8,
    val_images=4,
    image_size=(160, 192),
    people=(1, 3),
    figure_height=(0.6, 0.95),
    yaw_deg=35.0,
    back_view_fraction=0.2,
    camera_pitch_deg=6.0,
    pose_variety=1.0,
    crop_fraction=0.3,
    occluder_fraction=0.3,
    crowd_fraction=0.3,
    clutter=0.6,
    photo_fraction=0.3,
    light_range=(0.8, 1.2),
    supersampling=2,
    jpeg_quality=90,
)

IMAGENET = GenerateImagenet(
    seed=3,
    train_images_per_class=2,
    val_images_per_class=1,
    image_size=(64, 64),
    yaw_deg=15.0,
    camera_pitch_deg=3.0,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.9, 1.1),
    supersampling=1,
    jpeg_quality=90,
)

FACE = GenerateFace(
    seed=3,
    train_images=8,
    test_images=6,
    image_size=(112, 128),
    face_size=(0.5, 0.7),
    yaw_deg=12.0,
    large_yaw_deg=(35.0, 60.0),
    pitch_deg=6.0,
    roll_deg=6.0,
    pose_fraction=0.2,
    expression_fraction=0.2,
    illumination_fraction=0.2,
    make_up_fraction=0.2,
    occlusion_fraction=0.2,
    blur_fraction=0.2,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.9, 1.1),
    supersampling=2,
    jpeg_quality=90,
)

MESH = GenerateMesh(
    seed=3,
    train_images=6,
    test_images=27,
    image_size=(72, 64),
    figure_height=(0.7, 0.9),
    yaw_deg=40.0,
    back_view_fraction=0.2,
    camera_pitch_deg=6.0,
    pose_variety=1.0,
    shape_variety=1.0,
    occluder_fraction=0.2,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.8, 1.2),
    supersampling=1,
    jpeg_quality=90,
)

SETS: dict[str, Callable[[Path], None]] = {
    "face": partial(generate_face, options=FACE),
    "imagenet": partial(generate_imagenet, options=IMAGENET),
    "mesh": partial(generate_mesh, options=MESH),
    "wholebody": partial(generate_wholebody, options=WHOLEBODY),
}


def contents(root: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, and of each array in an .npz: zlib's versions compress differently."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                found |= {f"{name}/{part}": hashlib.sha256(file.read(part)).hexdigest() for part in file.namelist()}
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def crops() -> str:
    """The SHA-256 of crops, as datasets cut them, turned and mirrored ones among them."""
    rng = np.random.default_rng(0)
    image, sha256 = rng.integers(0, 256, (150, 200, 3), np.uint8), hashlib.sha256()
    for _ in range(60):
        (x, y), extent, angle = rng.uniform(0, 200, 2), rng.uniform(20, 300), rng.uniform(-60, 60)
        matrix = crop_matrix((x, y), (extent, extent), angle, (64, 48), 200 if rng.random() < 0.5 else None)
        sha256.update(cut_crop(image, matrix, (64, 48)).tobytes())
    return sha256.hexdigest()


def numpy_features() -> list[str]:
    """The optional CPU features for which NumPy has code and which this process uses."""
    from numpy._core import _multiarray_umath as core

    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]


def opencv_features() -> list[str]:
    """The optional CPU features for which OpenCV has code and which this process uses."""
    optional = [name for name in cv2.getCPUFeaturesLine().split() if name.startswith("*")]
    return [name.removeprefix("*") for name in optional if not name.endswith("?")]


def describe(root: Path) -> dict[str, object]:
    """Generate all sets below a folder; returns their contents, `crops`, and which CPU features are used."""
    for name, generate in SETS.items():
        generate(root / name)
    sets = {name: contents(root / name) for name in SETS}
    return {"sets": sets, "crops": crops(), "features": numpy_features() + opencv_features()}


def record() -> None:
    """Write the hashes of the sets as this machine generates them."""
    with tempfile.TemporaryDirectory() as folder:
        made = describe(Path(folder))
    assert isinstance(made["sets"], dict)
    hashes = {name: sha256_of_json(files) for name, files in made["sets"].items()} | {"crops": made["crops"]}
    HASHES.write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        record()
    else:
        print(json.dumps(describe(Path(sys.argv[1]))))

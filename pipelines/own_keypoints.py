"""From labelled pictures to the sections of params.yaml that train on them: what `tcformer keypoints` does."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipelines.params import load_params
from tcformer.checks import is_count, read_json
from tcformer.data.keypoints.annotations import Annotated, load_annotated
from tcformer.data.keypoints.points import DEFAULT_SIGMA, PointSet, read_description
from tcformer.data.keypoints.pts import coco_of_pts
from tcformer.errors import UserError
from tcformer.files import atomic_write

_TEMPLATE = Path(__file__).parent / "datasets/own_keypoints.yaml"
_TASK = "keypoints"


@dataclass(frozen=True)
class OwnFiles:
    """The user's files.

    Attributes:
        train: annotations of the training set.
        val: annotations of the validation set.
        train_images: folder that the image names of `train` are relative to.
        val_images: of those of `val`.
        category: see `load_annotated`.
        points: see `load_annotated`.
    """

    train: Path
    val: Path
    train_images: Path
    val_images: Path
    category: str | None = None
    points: Path | None = None


def add_sections(params_file: Path, recipe: str, files: OwnFiles | None) -> list[str]:
    """Add the sections of the task to a recipe of params.yaml, and check the result.

    Args:
        params_file: params.yaml; only lines are added to it.
        recipe: that gets the sections.
        files: the user's; None: generated people.

    Returns:
        What was found in the files, for the user.

    Raises:
        UserError: the recipe has the sections already, or a file breaks its format.
    """
    if _TASK in getattr(load_params(params_file), recipe).tasks:
        raise UserError(
            f"{params_file}: {recipe}.finetune.{_TASK} exists already: expected a recipe without it; edit its "
            f"sections, or remove {recipe}.data.{_TASK}, finetune.{_TASK}, evaluate.{_TASK} and visualize.{_TASK} first"
        )
    values, notes = _generated() if files is None else _named(files)
    text = params_file.read_text(encoding="utf-8")
    lines, tree = text.splitlines(keepends=True), YAML().load(text)[recipe]
    sections = _sections(values)
    places = {name: tree[name].lc.key(next(iter(tree[name])))[0] for name in sections}  # of the first task's section
    for name, line in sorted(places.items(), key=lambda place: -place[1]):
        lines[line:line] = [f"  {each}" for each in sections[name]]
    with atomic_write(params_file) as part:
        part.write_text("".join(lines), encoding="utf-8")
        load_params(part)
    return notes


def _sections(values: Mapping[str, object]) -> dict[str, list[str]]:
    """The lines of the template below each of its sections, with values for its variables."""
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    sections: dict[str, list[str]] = {}
    for line in _TEMPLATE.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith(" "):
            sections[next(reversed(sections))].append(string.Template(line).substitute(written))
        elif not line.startswith("#"):
            sections[line.strip().rstrip(":")] = []
    return sections


def _generated() -> tuple[dict[str, object], list[str]]:
    options = {"seed": 5, "train_images": 200, "val_images": 40, "image_size": [192, 192], "people": [1, 1]}
    options |= {"figure_height": [0.75, 0.95], "yaw_deg": 25.0, "back_view_fraction": 0.0, "camera_pitch_deg": 3.0}
    options |= {"pose_variety": 0.9, "crop_fraction": 0.0, "occluder_fraction": 0.0, "crowd_fraction": 0.0}
    options |= {"clutter": 0.25, "photo_fraction": 0.2, "light_range": [0.9, 1.1], "supersampling": 2}
    values = _values("generated", None, options | {"jpeg_quality": 92}, ["train.json", "val.json", "train", "val"])
    return values, ["200 generated people to train on, 40 to validate on, with 14 keypoints"]


def _named(files: OwnFiles) -> tuple[dict[str, object], list[str]]:
    train = load_annotated(files.train, files.train_images, files.category, files.points)
    val = load_annotated(files.val, files.val_images, files.category, files.points)
    notes = [f"{files.train}: {_counts(train)}", f"{files.val}: {_counts(val)}", *_describe(train.points)]
    named = [files.train, files.val, files.train_images, files.val_images, *([files.points] if files.points else [])]
    every = [path.resolve() for path in named]
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in every]))
    places = [path.relative_to(root).as_posix() for path in every]
    mirrors = train.points.flip is not None
    if not mirrors:
        notes.append("flip_probability: 0 and flip_test: false, because there are no left/right pairs")
    return _values("official", str(root), None, places, files.category, mirrors), notes


def _values(
    source: str,
    root: str | None,
    generate: Mapping[str, object] | None,
    places: Sequence[str],
    category: str | None = None,
    mirrors: bool = True,
) -> dict[str, object]:
    """The template's variables; `places` are annotations and images of training and validation, and of the points."""
    train, val, train_images, val_images, points = [*places, None][:5]
    return {
        "source": source,
        "root": root,
        "generate": generate,
        "train": train,
        "val": val,
        "train_images": train_images,
        "val_images": val_images,
        "category": category,
        "points": points,
        "flip_probability": 0.5 if mirrors else 0.0,
        "flip_test": mirrors,
    }


def _counts(annotated: Annotated) -> str:
    crops = annotated.crops()
    kind = f" of the category {annotated.points.category}" if annotated.points.category else ""
    return f"{len(crops)} labelled objects{kind} on {len(set(crops.image_id.tolist()))} images"


def _describe(points: PointSet) -> list[str]:
    """What is known of points, a line for each matter."""
    pairs = [f"{points.names[a]} / {points.names[b]}" for a, b in points.flip or ()]
    default = sum(sigma == DEFAULT_SIGMA for sigma in points.sigmas)
    return [
        f"{len(points)} points: {', '.join(points.names)}",
        f"{len(points.skeleton)} lines of the skeleton",
        f"{len(pairs)} left/right pairs: {', '.join(pairs)}" if points.flip is not None else "no left/right pairs",
        f"sigmas: {len(points) - default} known, {default} by default ({DEFAULT_SIGMA})",
    ]


def split(source: Path, share: float, out: Path, seed: int) -> list[str]:
    """Divide the images of a COCO file at random among train.json and val.json in a folder.

    Args:
        source: the file.
        share: of the images that go to val.json.
        out: the folder.
        seed: of the choice.

    Raises:
        UserError: the file breaks the format, or one of the two would get no image.
    """
    content = read_json(source, "give the path of a COCO keypoint file")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(n), list) for n in ("images", "annotations")):
        raise UserError(f"{source}: expected an object with the lists images and annotations; export COCO keypoints")
    images = content["images"]
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise UserError(
            f"{source}: {len(images)} images, of which {count} would be for validation: expected some for each; "
            "label more images, or change --val"
        )
    chosen = {int(index) for index in np.random.default_rng(seed).permutation(len(images))[:count]}
    notes = []
    for name, is_val in (("train", False), ("val", True)):
        kept = [image for index, image in enumerate(images) if (index in chosen) is is_val]
        ids = {number for image in kept if is_count(number := _field(image, "id"), 0)}
        annotations = [
            a for a in content["annotations"] if is_count(number := _field(a, "image_id"), 0) and number in ids
        ]
        _write_json(out / f"{name}.json", {**content, "images": kept, "annotations": annotations})
        notes.append(f"{out / name}.json: {len(kept)} images, {len(annotations)} annotations")
    return notes


def convert_pts(folders: Sequence[Path], images: Path, points: Path | None, out: Path) -> list[str]:
    """Write a COCO keypoint file of the .pts files below some folders, see `coco_of_pts`."""
    content = coco_of_pts(folders, images, None if points is None else read_description(points))
    _write_json(out, content)
    count = len(content["categories"][0]["keypoints"])
    return [f"{out}: {len(content['images'])} images with {count} points each"]


def _field(record: object, name: str) -> object:
    return record.get(name) if isinstance(record, Mapping) else None


def _write_json(path: Path, content: object) -> None:
    """Write a JSON file. Raises UserError if that is not possible."""
    try:
        with atomic_write(path) as part:
            part.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another place") from error

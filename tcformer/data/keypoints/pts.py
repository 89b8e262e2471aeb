"""The .pts files of 300-W and other face datasets: one text file of points beside each image.

Source: the description of the 300-W challenge (ibug.doc.ic.ac.uk/resources/300-W), where pixels count from 1, as in
MATLAB. Here they count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tcformer.data.images import without_pillow_limit
from tcformer.data.keypoints.points import IBUG68, PointSet, described_points
from tcformer.errors import UserError

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp")


def read_pts(path: Path) -> list[tuple[float, float]]:
    """The points of a .pts file, x and y in pixels from 0.

    Raises:
        UserError: the file breaks the format.
    """
    where = f"{path}: "
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{where}cannot be read as text ({error}); copy the file again") from error
    head, opened, rest = text.partition("{")
    body, closed, _ = rest.partition("}")
    fields = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    expected = next((value.strip() for name, value in fields.items() if name.strip() == "n_points"), "")
    if not opened or not closed or not expected.isdecimal():
        raise UserError(f"{where}expected 'n_points: K' and K lines of x y in braces; copy the file again")
    points = []
    for number, line in enumerate((line for line in body.splitlines() if line.strip()), 1):
        try:
            x, y = (float(value) for value in line.split())
        except ValueError:
            x = y = math.nan
        if not math.isfinite(x) or not math.isfinite(y):
            raise UserError(f"{where}point {number}: expected two numbers, found {line.strip():.40}; correct the line")
        points.append((x - 1, y - 1))
    if len(points) != int(expected):
        raise UserError(f"{where}expected {expected} points, as n_points says, found {len(points)}; correct the file")
    return points


def pts_files(folder: Path) -> list[Path]:
    """The .pts files below a folder, in sorted order, without hidden ones."""
    return sorted(path for path in folder.rglob("*.pts") if not path.name.startswith("."))


def coco_of_pts(folders: Iterable[Path], images: Path, description: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of a COCO keypoint file for the .pts files below some folders.

    The image of `face.pts` is `face.png` or another image of that name: at the same place below `images` as the .pts
    file is below its folder, or beside the .pts file. Boxes are those around the points.

    Args:
        folders: are searched for .pts files, with all folders below.
        images: folder that image names are relative to.
        description: of the points (see `tcformer.data.keypoints.points`); 68 points need none.

    Raises:
        UserError: there is no .pts file, a file breaks the format or has another number of points, or its image is
            missing.
    """
    records: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    points: PointSet | None = None
    for folder in folders:
        found = pts_files(folder)
        if not found:
            raise UserError(f"{folder}: no .pts file; expected one beside each image; give the folder that has them")
        for path in found:
            xy = read_pts(path)
            if points is None:
                points = _points(len(xy), description, path)
            if len(xy) != len(points):
                raise UserError(
                    f"{path}: {len(xy)} points; expected {len(points)}, as the files before it have; remove the file"
                )
            name = _image_of(path, folder, images)
            number = len(records) + 1
            width, height = _size(images / name)
            pictures.append({"id": number, "file_name": name, "width": width, "height": height})
            flat = [value for x, y in xy for value in (round(x, 4), round(y, 4), 2)]
            record = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "num_keypoints": len(xy)}
            records.append({**record, "keypoints": flat})
    if points is None:
        raise UserError(".pts files: no folder given; expected at least one; name the folders that have them")
    described = points.to_json()
    pairs = {name: [[a + 1, b + 1] for a, b in described[name] or []] for name in ("skeleton", "flip")}
    category = {
        "id": 1,
        "name": points.category or "object",
        "keypoints": described["names"],
        "skeleton": pairs["skeleton"],
        "sigmas": described["sigmas"],
        "groups": {name: [point + 1 for point in group] for name, group in points.groups.items()},
    }
    if points.flip is not None:
        category["flip"] = pairs["flip"]
    if points.normalise is not None:
        category["normalise"] = [point + 1 for point in points.normalise]
    return {"images": pictures, "annotations": records, "categories": [category]}


def _points(count: int, description: dict[str, Any] | None, path: Path) -> PointSet:
    if description and "names" in description:
        points = described_points(description, "the description of the points")
        if len(points) != count:
            raise UserError(
                f"{path}: {count} points, but the description names {len(points)}; expected the same number; correct "
                "`names`"
            )
        return points
    if count != len(IBUG68):
        raise UserError(
            f"{path}: {count} points, whose names are not known: expected the {len(IBUG68)} of 300-W; name them in a "
            "YAML file (docs/own-keypoints.md)"
        )
    return IBUG68


def _image_of(path: Path, folder: Path, images: Path) -> str:
    stem = path.relative_to(folder).with_suffix("")
    places = [images / stem.parent]
    if path.parent.is_relative_to(images):
        places.append(path.parent)
    for place in places:
        for suffix in _SUFFIXES:
            for name in (f"{path.stem}{suffix}", f"{path.stem}{suffix.upper()}"):
                if (place / name).is_file():
                    return (place / name).relative_to(images).as_posix()
    raise UserError(
        f"{path}: no image {path.stem}{_SUFFIXES[0]} or {path.stem}{_SUFFIXES[1]} in {places[0]}; expected one of the "
        "same name; copy it there"
    )


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with without_pillow_limit(), Image.open(path) as image:
            return image.width, image.height
    except (OSError, ValueError) as error:
        raise UserError(f"image {path}: cannot be read ({error}); expected a JPEG or PNG; copy it again") from error

"""COCO keypoint files with any number of points, as people label them themselves.

Of a file are read: images (id, file_name, width, height), categories (id, name, keypoints, skeleton), annotations (id,
image_id, category_id, keypoints; bbox, area, iscrowd if they exist). A point is labelled if its visibility is above 0.
An annotation without a bbox gets the box around its labelled points, one without an area that of its box. Annotations
without keypoints, as of objects that were only boxed, are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import is_count, is_number, numbers_of_list, read_json
from tcformer.data.keypoints.points import PointSet, points_of_category, read_description
from tcformer.data.keypoints.pts import coco_of_pts
from tcformer.data.wholebody.dataset import Crops, People, annotated_crops, box_problem, checked_images
from tcformer.errors import UserError

_LISTS: Final = ("images", "annotations", "categories")
_HINT: Final = "expected a COCO keypoint file; correct the parameter, or run the prepare stage"


@dataclass(frozen=True, eq=False)
class Annotated:
    """The annotations of one category of a file.

    Attributes:
        points: names and relations of the points.
        category_id: of the category in the file.
        people: the annotated objects, people or others.
    """

    points: PointSet
    category_id: int
    people: People

    def crops(self) -> Crops:
        """The boxes to crop: of all objects with a labelled point that are no crowd, clipped to the image."""
        return annotated_crops(self.people, slice(None))


def load_annotated(path: Path, images: Path, category: str | None = None, points: Path | None = None) -> Annotated:
    """Read and check the annotations of a category.

    Args:
        path: a COCO keypoint file, or a folder of .pts files.
        images: the folder that image names are relative to.
        category: name of the category; None: the only one that has keypoints.
        points: a YAML file that describes the points, see `tcformer.data.keypoints.points`.

    Raises:
        UserError: a file is missing or breaks its format, or the category does not exist. The message names the first
            wrong record, what was expected, and the number of other wrong records.
    """
    description = None if points is None else read_description(points)
    content = coco_of_pts([path], images, description) if path.is_dir() else read_json(path, _HINT)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(name), list) for name in _LISTS):
        raise UserError(f"{path}: expected an object with the lists {', '.join(_LISTS)}; export it as COCO keypoints")
    chosen = _category(path, content["categories"], category)
    where = f"{path}: category {chosen.get('name')!r:.60}"
    described = points_of_category(chosen, where, description)
    return Annotated(described, chosen["id"], _people(path, content, chosen["id"], described))


def _category(path: Path, categories: Sequence[object], name: str | None) -> Mapping[str, Any]:
    usable = [c for c in categories if isinstance(c, Mapping) and is_count(c.get("id"), 0)]
    with_points = [c for c in usable if isinstance(c.get("keypoints"), list) and c["keypoints"]]
    listed = ", ".join(repr(str(c.get("name"))) for c in usable[:20]) or "none"
    if name is not None:
        found = [c for c in usable if c.get("name") == name]
        if not found:
            raise UserError(f"{path}: there is no category {name!r}: expected one of {listed}; correct `category`")
        return found[0]
    if len(with_points) == 1:
        return with_points[0]
    if not with_points and len(usable) == 1:
        return usable[0]
    if not with_points:
        raise UserError(
            f"{path}: no category has keypoints (categories: {listed}); expected one with the list `keypoints`; name "
            "the points in the YAML file of the parameter `points`, and set `category`"
        )
    names = ", ".join(repr(str(c.get("name"))) for c in with_points)
    raise UserError(
        f"{path}: the categories {names} have keypoints: expected one; choose it by the parameter `category`"
    )


def _people(path: Path, content: Mapping[str, Any], category_id: int, points: PointSet) -> People:
    images, problems = checked_images(content["images"])
    rows: list[_Row] = []
    seen: set[int] = set()
    for annotation in content["annotations"]:
        if isinstance(annotation, Mapping) and annotation.get("category_id") != category_id:
            continue
        row = _row(annotation, images, seen, points)
        if isinstance(row, str):
            problems.append(row)
        elif row is not None:
            rows.append(row)
    if problems:
        rest = f" ({len(problems) - 1} more records are wrong)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {problems[0]}; correct the record{rest}")
    return People(
        images=images,
        annotation_id=np.array([row.annotation_id for row in rows], np.int64),
        image_id=np.array([row.image_id for row in rows], np.int64),
        box=np.array([row.box for row in rows], np.float64).reshape(-1, 4),
        area=np.array([row.area for row in rows], np.float64),
        crowd=np.array([row.crowd for row in rows], bool),
        keypoints=np.array([row.points for row in rows], np.float64).reshape(-1, len(points), 3),
    )


@dataclass(frozen=True, eq=False)
class _Row:
    annotation_id: int
    image_id: int
    box: Sequence[float]
    area: float
    crowd: bool
    points: NDArray[np.float64]


def _row(
    annotation: object, images: Mapping[int, tuple[str, int, int]], seen: set[int], points: PointSet
) -> _Row | str | None:
    """An annotation, or what is wrong with it; None if it has no keypoints. Adds its id to `seen`."""
    if not isinstance(annotation, Mapping):
        return f"annotation {annotation!r:.80}: expected an object"
    number, image_id = annotation.get("id"), annotation.get("image_id")
    where = f"annotation {number!r:.40}: field"
    if not is_count(number, 0):
        return f"{where} 'id': expected an integer of at least 0"
    if number in seen:
        return f"{where} 'id': expected each id once, found it again"
    seen.add(number)
    if not is_count(image_id, 0) or image_id not in images:
        return f"{where} 'image_id': expected the id of an image of this file, found {image_id!r:.40}"
    if not annotation.get("keypoints"):
        return None
    values = numbers_of_list(annotation["keypoints"])
    if values is None or values.shape != (3 * len(points),):
        found = f"{values.size}" if values is not None else f"{annotation['keypoints']!r:.60}"
        return (
            f"{where} 'keypoints': expected {3 * len(points)} numbers (x, y, visibility of each of the {len(points)} "
            f"points of the category), found {found}"
        )
    triplets = values.reshape(-1, 3)
    if not np.isfinite(triplets).all() or (triplets[:, 2] < 0).any():
        return f"{where} 'keypoints': expected finite numbers and visibilities of at least 0"
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        return f"{where} 'iscrowd': expected 0 or 1, found {crowd!r:.40}"
    labelled = triplets[triplets[:, 2] > 0, :2]
    box = annotation.get("bbox")
    if box is None:
        box = _around(labelled, images[image_id][1:])
    elif problem := box_problem(box, where, allow_empty=not len(labelled)):
        return problem
    area = annotation.get("area")
    if area is None:
        area = box[2] * box[3]
    if not is_number(area) or area < 0:
        return f"{where} 'area': expected a number of pixels² of at least 0, found {area!r:.40}"
    return _Row(number, image_id, box, float(area) or float(box[2] * box[3]), bool(crowd), triplets)


def _around(points: NDArray[np.float64], size: tuple[int, int]) -> list[float]:
    """The box around points, in whole pixels, rounded outwards and at least two pixels wide and high."""
    if not len(points):
        return [0.0, 0.0, 0.0, 0.0]
    low = np.clip(np.floor(points.min(0)), 0, np.maximum(np.array(size) - 3.0, 0))
    high = np.maximum(np.ceil(points.max(0)), low + 2)
    return [*low.tolist(), *(high - low + 1).tolist()]  # `annotated_crops` takes the last pixel away

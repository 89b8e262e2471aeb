"""The boxes of a file for each picture: COCO's detections and annotations, WFLW's lists, and simple JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcformer.checks import is_count, is_number, numbers_of_list, read_json
from tcformer.errors import UserError, listed
from tcformer.inference import Boxes

_FORMATS = (
    "expected detections or annotations as COCO's, [[x, y, width, height], ...], or "
    '{"photo.jpg": [[x, y, width, height], ...], ...}, in pixels'
)


class BoxFile:
    """The boxes of a file.

    Args:
        path: a JSON file, or a list of WFLW.
        least_score: detections with a lower score are dropped.

    Raises:
        UserError: the file does not exist or has another format.
    """

    def __init__(self, path: Path, least_score: float = 0.0) -> None:
        self.path = path
        self._least_score = least_score
        self._rows: dict[str, list[tuple[list[float], float, int]]] = {}  # by name of a picture, or "" for all
        #: Numbers of pictures by their names, if the file has them.
        self.image_ids: dict[str, int] = {}
        if path.suffix == ".txt":
            self._read_wflw()
        else:
            self._read(read_json(path, "give the path of a file with boxes"))

    def of(self, picture: Path) -> Boxes:
        """The boxes of a picture, none if the file has none."""
        rows = self._rows.get(self._key(picture), self._rows.get("", []))
        return Boxes(
            np.array([row[0] for row in rows], np.float64).reshape(-1, 4),
            np.array([row[1] for row in rows], np.float64),
            np.array([row[2] for row in rows], np.int64),
        )

    def check_pictures(self, pictures: list[Path]) -> None:
        """Raise UserError if the file has no box for any of the pictures."""
        if not any(len(self.of(picture)) for picture in pictures):
            known = [f"'{name}'" for name in self._rows if name]
            raise UserError(
                f"{self.path}: has no box for any of the {len(pictures)} pictures, such as {pictures[0].name}; it has "
                f"boxes for {listed(known, 3) if known else 'none'}; give the boxes of these pictures, or lower the "
                "least score"
            )

    def _key(self, picture: Path) -> str:
        """The name under which the file has a picture: its name with folders, its name, or its number."""
        parts = picture.parts
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        stem = picture.stem.rpartition("_")[2]  # COCO_val2014_000000000042
        numbers = [str(int(stem))] if stem.isascii() and stem.isdigit() and len(stem) < 19 else []
        return next((name for name in (*names, *numbers) if name in self._rows), names[-1])

    def _add(self, name: str, box: object, where: str, score: object = 1.0, number: object = 0) -> None:
        values = numbers_of_list(box)
        if values is None or values.shape != (4,) or not (values[2:] > 0).all():
            raise UserError(
                f"{self.path}: {where}: expected a box x, y, width, height in pixels with a width and height above 0, "
                f"found {box!r:.80}; correct it"
            )
        if not is_number(score) or not is_count(number, 0):
            raise UserError(f"{self.path}: {where}: expected a number as score and as id; correct it")
        rows = self._rows.setdefault(name, [])
        if score >= self._least_score:
            rows.append((values.tolist(), float(score), int(number)))

    def _read(self, content: object) -> None:
        if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
            self._read_coco(content)
        elif isinstance(content, dict):
            for name, boxes in content.items():
                single = isinstance(boxes, list) and len(boxes) == 4 and all(is_number(v) for v in boxes)
                for index, box in enumerate([boxes] if single else _list(boxes, f"{self.path}: '{name}'")):
                    self._add(name, box, f"'{name}', box {index} (counted from 0)")
        elif isinstance(content, list) and content and all(isinstance(record, dict) for record in content):
            for index, record in enumerate(content):
                self._add_record(record, f"record {index} (counted from 0)")
        elif isinstance(content, list) and content:
            single = len(content) == 4 and all(is_number(value) for value in content)
            for index, box in enumerate([content] if single else content):
                self._add("", box, f"box {index} (counted from 0)")
        else:
            raise UserError(f"{self.path}: contains no boxes; {_FORMATS}")

    def _add_record(self, record: Mapping[str, Any], where: str) -> None:
        if record.get("category_id", 1) != 1:
            return  # not a person
        name = record.get("file_name", record.get("image_id"))
        box = record.get("bbox", record.get("box"))
        if not isinstance(name, str) and not is_count(name, 0):
            raise UserError(f"{self.path}: {where} has neither 'file_name' nor 'image_id'; {_FORMATS}")
        self._add(str(name), box, where, record.get("score", 1.0))

    def _read_coco(self, content: Mapping[str, Any]) -> None:
        names: dict[int, str] = {}
        for image in content["images"]:
            if not isinstance(image, dict) or not is_count(image.get("id"), 0):
                raise UserError(f"{self.path}: image {image!r:.80}: expected an object with 'id'; {_FORMATS}")
            name = image.get("file_name")
            names[image["id"]] = name if isinstance(name, str) else str(image["id"])
            self.image_ids[names[image["id"]]] = image["id"]
        wanted = _category_with_keypoints(content.get("categories"))
        for index, record in enumerate(_list(content["annotations"], f"{self.path}: annotations")):
            where = f"annotation {index} (counted from 0)"
            image_id = record.get("image_id") if isinstance(record, dict) else None
            if not isinstance(record, dict) or not is_count(image_id, 0) or image_id not in names:
                raise UserError(f"{self.path}: {where}: expected an object with the 'image_id' of an image; {_FORMATS}")
            box = record.get("bbox")
            is_empty = isinstance(box, list) and len(box) == 4 and 0 in box[2:]
            if record.get("category_id", wanted) == wanted and not record.get("iscrowd") and not is_empty:
                self._add(names[image_id], box, where, number=record.get("id", 0))

    def _read_wflw(self) -> None:
        from tcformer.data.face.dataset import face_crops, load_faces

        faces = load_faces(self.path)
        for index, (name, box) in enumerate(zip(faces.names, face_crops(faces.points).tolist())):
            self._add(name, box, f"line {index + 1}", number=index)

    def image_id(self, picture: Path) -> int | None:
        """The number that the file gives to a picture; None if it gives none."""
        return self.image_ids.get(self._key(picture))


def _category_with_keypoints(categories: object) -> int:
    """The id of the only category with keypoints; 1, COCO's person, if there is none or several."""
    listed = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    found = [category["id"] for category in listed if category.get("keypoints") and is_count(category.get("id"), 0)]
    return found[0] if len(found) == 1 else 1


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, found {value!r:.80}; {_FORMATS}")
    return value

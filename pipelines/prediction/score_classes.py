"""Measure predicted classes of any program against class folders or a list of images and their classes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from tcformer.checks import is_count, read_json
from tcformer.data.imagenet.dataset import class_images, class_names
from tcformer.errors import UserError, listed
from tcformer.metrics.classification import accuracy
from tcformer.tables import Table

_MOST = 5  # classes of a result that count
_VALIDATION = "ILSVRC2012_val_{:08d}"  # names of the images to which ImageNet's list of labels belongs
_RESULT = (
    'expected records such as {"image": "ILSVRC2012_val_00000001.JPEG", "classes": [65, 62, ...]}, the best class '
    "first: numbers, counted from 0 in the order of the sorted names, or names"
)
_LABELS = (
    "expected a folder of class folders; a text file with an image and its class in each line; or the names (WordNet "
    "ids) of the classes of ImageNet's validation images, one a line. ILSVRC2012_validation_ground_truth.txt numbers "
    "the classes in another order"
)


def score_classes(results: Path, annotations: Path) -> tuple[dict[str, Any], list[Table]]:
    """Measure the classes that a program gave to images.

    Args:
        results: JSON records with "image", a path, whose name and, if that is not enough, whose folder say which image
            it is; and with "classes", the best first: numbers, names, or records with "class", as `tcformer predict`
            writes them.
        annotations: a folder of class folders or class tars; classes are numbered with those of a folder `train` beside
            it. Or a text file: the name of an image and its class in each line, or, for ImageNet's validation images in
            their order, the name of the class alone.

    Returns:
        The fractions of images whose class is the best one and among the five best ones, and a table of them.

    Raises:
        UserError: a file is missing or breaks its format, or an image has no result.
    """
    labels, names = _folder(annotations) if annotations.is_dir() else _list(annotations)
    numbers = {name: index for index, name in enumerate(names)} if names else None
    ranks: dict[str, int] = {}
    content = read_json(results, "give the path of a result file")
    short = _short_names(labels)
    for place, record in enumerate(content if isinstance(content, list) else [content]):
        where = f"{results}: record {place} (counted from 0)"
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            raise UserError(f"{where} names no image; {_RESULT}")
        image = _image(record["image"], labels, short)
        if image is None:
            raise UserError(f"{where}: image {record['image']!r:.80} is none of {annotations}; remove it")
        if image in ranks:
            raise UserError(f"{where}: a second result for image {image}; remove one")
        found = [_number(value, numbers) for value in _given(record)[:_MOST]]
        if not found or None in found or len(set(found)) != len(found):
            raise UserError(f"{where}: field 'classes': {_RESULT}, of the classes of {annotations}; correct it")
        ranks[image] = found.index(labels[image]) if labels[image] in found else _MOST
    missing = sorted(set(labels) - set(ranks))
    if missing:
        raise UserError(
            f"{results}: {len(missing)} of the {len(labels)} images of {annotations} have no result: "
            f"{listed(missing)}; predict them too"
        )
    measures = accuracy([{"index": image, "rank": rank} for image, rank in ranks.items()])
    row = (measures["count"], measures["top1"], measures["top5"])
    return dict(measures), [Table("Accuracy", ("images", "top-1", "top-5"), (row,))]


def _given(record: dict[str, Any]) -> list[object]:
    classes = record.get("classes")
    if not isinstance(classes, list):
        return []
    return [value.get("class") if isinstance(value, dict) else value for value in classes]


def _number(value: object, numbers: dict[str, int] | None) -> int | None:
    """The number of a class by its number or its name; None: there is no such class."""
    if isinstance(value, str):
        return numbers.get(value) if numbers else None
    return value if is_count(value, 0) and (numbers is None or value < len(numbers)) else None


def _short_names(labels: dict[str, int]) -> dict[str, str | None]:
    """The image of each file name; None: there are several."""
    found: dict[str, str | None] = {}
    for image in labels:
        name = PurePosixPath(image).name
        found[name] = None if name in found else image
    return found


def _image(path: str, labels: dict[str, int], short: dict[str, str | None]) -> str | None:
    parts = PurePosixPath(path).parts
    whole = "/".join(parts[-2:])
    return whole if whole in labels else short.get(parts[-1] if parts else "")


def _folder(root: Path) -> tuple[dict[str, int], list[str]]:
    own = class_names(root)
    if not own:
        raise UserError(f"{root}: no class folders; {_LABELS}")
    names = sorted(own | class_names(root.parent / "train"))
    images = {
        f"{name}/{member.name}": number for number, name in enumerate(names) for member in class_images(root, name)
    }
    if not images:
        raise UserError(f"{root}: no images in its class folders; {_LABELS}")
    return images, names


def _list(path: Path) -> tuple[dict[str, int], list[str] | None]:
    try:
        lines = [line.rsplit(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_LABELS}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); {_LABELS}") from error
    classes = [line[-1] for line in lines]
    numbered = all(name.isdecimal() for name in classes)
    if not lines or len({len(line) for line in lines}) > 1 or (numbered and len(lines[0]) == 1):
        raise UserError(f"{path}: {_LABELS}; give such a file")
    if len(lines[0]) == 2:
        images = [line[0] for line in lines]
    else:
        images = [f"{_VALIDATION.format(number)}.JPEG" for number in range(1, len(lines) + 1)]
    if len(set(images)) < len(images):
        raise UserError(f"{path}: an image stands in two lines; remove one")
    if numbered:
        return dict(zip(images, map(int, classes))), None
    names = sorted(set(classes))
    numbers = {name: number for number, name in enumerate(names)}
    return {image: numbers[name] for image, name in zip(images, classes)}, names

"""COCO-WholeBody V1.0: the official annotation and detection files, and top-down samples from them.

Files below a data root:

    annotations/coco_wholebody_{train,val}_v1.0.json
    {train,val}2017/%012d.jpg
    person_detection_results/COCO_val2017_detections_AP_H_56_person.json

A point is labelled if its visibility is above 0. The files use integers, flags 0.0 and 1.0, and confidences as
visibilities, so their other differences mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import is_below_folder, is_count, is_number, numbers_of_list, read_json
from tcformer.data.crops import centre_and_extent, crop_matrix, cut_crop, fit_aspect, transform_points
from tcformer.data.images import check_images, check_size, normalise, read_image
from tcformer.data.wholebody.keypoints import FLIP, NUM_KEYPOINTS, PART_FIELDS, PARTS, UPPER_BODY
from tcformer.errors import UserError
from tcformer.files import user_path
from tcformer.parameters import parameters

Split = Literal["train", "val"]

DETECTIONS: Final = "COCO_val2017_detections_AP_H_56_person.json"
_HINT = (
    "expected the official COCO-WholeBody V1.0 layout under the data root; run the prepare stage, or set the data root "
    "to where the files are"
)
_IS_UPPER = np.isin(np.arange(NUM_KEYPOINTS), UPPER_BODY)
_TRIPLETS = {PART_FIELDS[part]: PARTS[part].stop - PARTS[part].start for part in PARTS}


def annotation_file(root: Path, split: Split) -> Path:
    """The annotation file of a split below a data root."""
    return root / "annotations" / f"coco_wholebody_{split}_v1.0.json"


def image_folder(root: Path, split: Split) -> Path:
    """The image folder of a split below a data root."""
    return root / f"{split}2017"


def detection_file(root: Path) -> Path:
    """The file of person detections (boxes and scores) on the validation images, below a data root."""
    return root / "person_detection_results" / DETECTIONS


@dataclass(frozen=True, eq=False)
class People:
    """The persons of an annotation file as arrays, in the order of the file.

    Attributes:
        images: file name, width and height in pixels of every image of the file, by image id.
        annotation_id: (N,) int64.
        image_id: (N,) int64.
        box: (N, 4) float64 x, y, width, height in pixels.
        area: (N,) float64 area of the person's segment, pixels².
        crowd: (N,) bool.
        keypoints: (N, 133, 3) float64 x, y in pixels, visibility; (N, K, 3) in a dataset of other points.
    """

    images: Mapping[int, tuple[str, int, int]]
    annotation_id: NDArray[np.int64]
    image_id: NDArray[np.int64]
    box: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    keypoints: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.annotation_id)


def load_people(source: Path | str | Mapping[str, Any]) -> People:
    """Read and check an official annotation file.

    Args:
        source: the path of the file, or its parsed content.

    Raises:
        UserError: the file does not exist, is not JSON or breaks the format. The message gives the id and the field of
            the first wrong record, what was expected, and the number of other wrong records.
    """
    if isinstance(source, Mapping):
        name, content = "annotations", source
    else:
        name, content = str(source), read_json(user_path(source), _HINT, object_hook=_compact)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise UserError(
            f"{name}: expected an object with the lists 'images' and 'annotations'; download the file again"
        )
    images, problems = checked_images(content["images"])
    annotations: list[dict[str, Any]] = []
    points: list[NDArray[np.float64]] = []
    seen: set[int] = set()
    for annotation in content["annotations"]:
        checked = _checked_points(annotation, images, seen)
        if isinstance(checked, str):
            problems.append(checked)
        else:
            annotations.append(annotation)
            points.append(checked)
    if problems:
        rest = f" ({len(problems) - 1} more records are wrong)" if len(problems) > 1 else ""
        raise UserError(f"{name}: {problems[0]}; correct the record or download the file again{rest}")
    return People(
        images=images,
        annotation_id=np.array([a["id"] for a in annotations], np.int64),
        image_id=np.array([a["image_id"] for a in annotations], np.int64),
        box=np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4),
        area=np.array([a["area"] for a in annotations], np.float64),
        crowd=np.array([a["iscrowd"] for a in annotations], bool),
        keypoints=np.array(points).reshape(-1, NUM_KEYPOINTS, 3),
    )


def _compact(record: dict[str, Any]) -> dict[str, Any]:
    """Convert the point lists of an annotation to arrays and drop its segmentation. Other records stay unchanged.

    This is done as soon as a record is parsed. With Python lists, the official training file would take 10 GB.
    """
    if "keypoints" in record and "image_id" in record:
        record.pop("segmentation", None)
        for field in _TRIPLETS:
            array = numbers_of_list(record.get(field))
            if array is not None:
                record[field] = array
    return record


def checked_images(records: Iterable[Any]) -> tuple[dict[int, tuple[str, int, int]], list[str]]:
    """Name, width and height by the id of an image record, and what is wrong with the other records."""
    images: dict[int, tuple[str, int, int]] = {}
    problems: list[str] = []
    for image in records:
        if problem := _image_problem(image, images):
            problems.append(problem)
        else:
            images[image["id"]] = (image["file_name"], image["width"], image["height"])
    return images, problems


def _image_problem(image: object, images: Mapping[int, object]) -> str | None:
    """What is wrong with an image record, or None."""
    if not isinstance(image, dict) or not is_count(image.get("id"), 0):
        return f"image {image!r:.80}: field 'id': expected an integer of at least 0"
    where = f"image {image['id']}: field"
    if image["id"] in images:
        return f"{where} 'id': expected each id once, found it again"
    if not isinstance(image.get("file_name"), str) or not is_below_folder(image["file_name"]):
        return f"{where} 'file_name': expected a path below the image folder, found {image.get('file_name')!r}"
    for field in ("width", "height"):
        if not is_count(image.get(field), 1):
            return f"{where} '{field}': expected an integer above 0 (pixels), found {image.get(field)!r}"
    return None


def _checked_points(annotation: object, images: Mapping[int, object], seen: set[int]) -> NDArray[np.float64] | str:
    """The (133, 3) points of an annotation, or what is wrong with it. Adds its id to `seen`."""
    if not isinstance(annotation, dict):
        return f"annotation {annotation!r:.80}: expected an object"
    number = annotation.get("id")
    where = f"annotation {number!r}: field"
    if not is_count(number, 1):
        return f"{where} 'id': expected an integer above 0 (to the evaluation, 0 means 'no match')"
    if number in seen:
        return f"{where} 'id': expected each id once, found it again"
    seen.add(number)
    image_id = annotation.get("image_id")
    if not is_count(image_id, 0) or image_id not in images:
        return f"{where} 'image_id': expected the id of an image of this file, found {image_id!r}"
    if annotation.get("category_id") != 1:
        return f"{where} 'category_id': expected 1 (person), found {annotation.get('category_id')!r}"
    if annotation.get("iscrowd") not in (0, 1):
        return f"{where} 'iscrowd': expected 0 or 1, found {annotation.get('iscrowd')!r}"
    if not is_number(annotation.get("area")) or annotation["area"] < 0:
        return f"{where} 'area': expected a number of pixels² of at least 0, found {annotation.get('area')!r}"
    parts = []
    for field, count in _TRIPLETS.items():
        found = annotation.get(field)
        values = found if isinstance(found, np.ndarray) else numbers_of_list(found)
        expected = f"{where} '{field}': expected {3 * count} numbers ({count} x, y, visibility)"
        if values is None:
            return f"{expected}, found {found!r:.60}"
        if values.shape != (3 * count,):
            return f"{expected}, found " + (f"{values.size}" if values.ndim == 1 else "nested lists")
        parts.append(values)
    points = np.concatenate(parts).reshape(NUM_KEYPOINTS, 3)
    wrong = ~np.isfinite(points).all(1) | (points[:, 2] < 0)
    if wrong.any():
        first = int(wrong.argmax())
        field = next(PART_FIELDS[part] for part, rows in PARTS.items() if first < rows.stop)
        return (
            f"{where} '{field}': expected finite numbers and visibilities of at least 0, found {points[first].tolist()}"
        )
    # COCO's training annotations contain empty boxes. They do no harm for a person without points.
    used = bool((points[PARTS["body"], 2] > 0).any())
    return box_problem(annotation.get("bbox"), where, allow_empty=not used) or points


def box_problem(box: object, where: str, allow_empty: bool) -> str | None:
    """What is wrong with a box, or None."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(v) for v in box):
        return f"{where} 'bbox': expected 4 finite numbers (x, y, width, height), found {box!r:.80}"
    if min(box[2:]) < 0 or (min(box[2:]) == 0 and not allow_empty):
        return f"{where} 'bbox': expected a width and height above 0, found {box[2]:g} by {box[3]:g}"
    return None


@dataclass(frozen=True, eq=False)
class Crops:
    """The boxes to crop, with their points if these are known.

    Attributes:
        images: file name, width and height in pixels of the images, by image id.
        image_id: (N,) int64.
        annotation_id: (N,) int64; 0 for a detection.
        box: (N, 4) float64 x, y, width, height in pixels.
        score: (N,) float32 confidence of the box; 1 for an annotation.
        keypoints: (N, 133, 3) float32 x, y in pixels, visibility; (N, K, 3) in a dataset of other points; None for
            detections.
    """

    images: Mapping[int, tuple[str, int, int]]
    image_id: NDArray[np.int64]
    annotation_id: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float32]
    keypoints: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.image_id)


def annotated_crops(people: People, used: slice = PARTS["body"]) -> Crops:
    """Select the persons, and compute the boxes, that mmpose 0.x trains and tests on.

    Crowds, persons without a labelled body point, persons without area and boxes outside the image are dropped. Boxes
    are clipped to the image as in mmpose, which makes them smaller by one pixel in width and height. Unlike in mmpose,
    a box over the left or upper border gets smaller as well; COCO has none.

    Args:
        people: the annotations.
        used: the points of which a person must have a labelled one.
    """
    size = np.array([people.images[i][1:] for i in people.image_id], np.float64).reshape(-1, 2)
    corner = np.maximum(people.box[:, :2], 0)
    end = np.minimum(size - 1, people.box[:, :2] + np.maximum(people.box[:, 2:] - 1, 0))
    labelled = (people.keypoints[:, used, 2] > 0).any(1)
    keep = ~people.crowd & labelled & (people.area > 0) & (end > corner).all(1)
    return Crops(
        images=people.images,
        image_id=people.image_id[keep],
        annotation_id=people.annotation_id[keep],
        box=np.concatenate([corner, end - corner], 1)[keep],
        score=np.ones(int(keep.sum()), np.float32),
        keypoints=people.keypoints[keep].astype(np.float32),
    )


def detected_crops(path: Path, people: People, least_score: float) -> Crops:
    """Read person detections on the images of an annotation file.

    Detections with a score below `least_score`, of another category, with an empty box, or on an image that is not in
    the annotation file are dropped.

    Raises:
        UserError: the file does not exist or breaks the format. The message gives the record and the field.
    """
    detections = read_json(path, _HINT)
    if not isinstance(detections, list):
        raise UserError(f"{path}: expected a list of detections; download the file again")
    rows = []
    for index, detection in enumerate(detections):
        where = f"{path}: detection {index} (counted from 0): field"
        if not isinstance(detection, dict):
            raise UserError(f"{path}: detection {index} (counted from 0): expected an object; download the file again")
        problem = box_problem(detection.get("bbox"), where, allow_empty=True)
        if not is_number(detection.get("score")):
            problem = f"{where} 'score': expected a finite number, found {detection.get('score')!r:.80}"
        if not is_count(detection.get("image_id"), 0):
            problem = f"{where} 'image_id': expected an integer of at least 0, found {detection.get('image_id')!r:.80}"
        if problem:
            raise UserError(f"{problem}; correct the record or download the file again")
        if (
            detection.get("category_id") == 1
            and detection.get("image_id") in people.images
            and detection["score"] >= least_score
            and min(detection["bbox"][2:]) > 0
        ):
            rows.append(detection)
    return Crops(
        images=people.images,
        image_id=np.array([r["image_id"] for r in rows], np.int64),
        annotation_id=np.zeros(len(rows), np.int64),
        box=np.array([r["bbox"] for r in rows], np.float64).reshape(-1, 4),
        score=np.array([r["score"] for r in rows], np.float32),
        keypoints=None,
    )


@parameters
class WholebodyAugmentation:
    """Random changes of a training crop, in the order in which they are drawn."""

    #: probability of shifting the box centre
    shift_probability: float
    #: largest shift of the box centre along each axis, as a fraction of the padded box
    shift: float
    #: probability of mirroring
    flip_probability: float
    #: probability of cropping only the upper body or only the other points
    half_body_probability: float
    #: number of labelled points above which half-body crops are made
    half_body_points: int
    #: standard deviation of the relative size of the crop, and its largest difference from 1
    scale: float
    #: standard deviation of the rotation in degrees; rotations are clipped to twice this
    rotation: float
    #: probability of rotating
    rotation_probability: float


class WholebodyDataset:
    """Crops of persons as samples for the network.

    A sample contains
        image: (3, height, width) float32, RGB normalised by the ImageNet mean and standard deviation
        points: (133, 2), or (K, 2) for other points, float32 x, y in pixels of `image`; 0 if not labelled
        weights: (133,) or (K,) float32, 1 if labelled, else 0
        centre, extent: (2,) float32, the crop in image pixels, after augmentation
        score: float, confidence of the box
        image_id, annotation_id, index: int

    Args:
        crops: the boxes to crop.
        folder: the image folder.
        input_size: (height, width) of the network's input.
        padding: factor by which the crop is larger than the box.
        augmentation: is applied if `sample` gets a generator; None for no augmentation.
        flip: (K,) for a dataset of other points: point i of a mirrored image is point `flip[i]` of the original. There
            are no half-body crops of other points.

    Raises:
        UserError: images are missing.
    """

    def __init__(
        self,
        crops: Crops,
        folder: Path,
        input_size: tuple[int, int],
        padding: float,
        augmentation: WholebodyAugmentation | None = None,
        flip: NDArray[np.int64] = FLIP,
    ) -> None:
        check_images(folder, (crops.images[int(i)][0] for i in np.unique(crops.image_id)))
        self.crops = crops
        self.folder = folder
        self.input_size = input_size
        self.augmentation = augmentation
        self._flip = flip
        self._upper = _IS_UPPER if flip is FLIP else np.zeros(len(flip), bool)
        self._centre, self._extent = centre_and_extent(crops.box, input_size, padding)

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def num_images(self) -> int:
        """Number of image files. Several persons may be on one image."""
        return len(np.unique(self.crops.image_id))

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make the crop `index`. It is augmented if there is a generator, from which all randomness comes."""

        crops = self.crops
        image_id = int(crops.image_id[index])
        name, *size = crops.images[image_id]
        image = read_image(self.folder / name)
        check_size((image.shape[1], image.shape[0]), (size[0], size[1]), self.folder / name)
        points = np.zeros((len(self._flip), 2), np.float32)
        labelled = np.zeros(len(self._flip), bool)
        if crops.keypoints is not None:
            points = crops.keypoints[index, :, :2]
            labelled = crops.keypoints[index, :, 2] > 0
        centre, extent, rotation, flip = self._centre[index], self._extent[index], 0.0, False
        if rng is not None and self.augmentation is not None:
            centre, extent, rotation, flip = self._augment(
                self.augmentation, centre, extent, points[labelled], self._upper[labelled], image.shape[1], rng
            )
        matrix = crop_matrix(centre, extent, rotation, self.input_size, image.shape[1] if flip else None)
        crop = cut_crop(image, matrix, self.input_size)
        points = np.where(labelled[:, None], transform_points(points, matrix), 0).astype(np.float32)
        if flip:
            points, labelled = points[self._flip], labelled[self._flip]
        return {
            "image": normalise(crop),
            "points": points,
            "weights": labelled.astype(np.float32),
            "centre": centre.astype(np.float32),
            "extent": extent.astype(np.float32),
            "score": float(crops.score[index]),
            "image_id": image_id,
            "annotation_id": int(crops.annotation_id[index]),
            "index": index,
        }

    def _augment(
        self,
        options: WholebodyAugmentation,
        centre: NDArray[np.float64],
        extent: NDArray[np.float64],
        points: NDArray[np.float32],
        upper: NDArray[np.bool_],
        image_width: int,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float, bool]:
        """Draw a random crop.

        Args:
            options: of the augmentation.
            centre: (2,) of the crop without augmentation.
            extent: (2,) of the crop without augmentation.
            points: (P, 2) labelled points.
            upper: (P,) whether each point belongs to the upper body.
            image_width: in pixels.
            rng: the only source of randomness.

        Returns:
            Centre (in the mirrored image, if mirrored), extent, rotation in degrees, and whether to mirror.
        """
        if rng.random() < options.shift_probability:
            centre = centre + rng.uniform(-1, 1, 2) * options.shift * extent
        flip = bool(rng.random() < options.flip_probability)
        if len(points) > options.half_body_points and rng.random() < options.half_body_probability:
            half = self._half_body(points, upper, rng)
            if half is not None:
                centre, extent = half
        if flip:
            centre = np.array([image_width - 1 - centre[0], centre[1]])
        extent = extent * np.clip(1 + options.scale * rng.standard_normal(), 1 - options.scale, 1 + options.scale)
        rotation = float(np.clip(rng.standard_normal(), -2, 2)) * options.rotation
        if rng.random() >= options.rotation_probability:
            rotation = 0.0
        return centre, extent, rotation, flip

    def _half_body(
        self, points: NDArray[np.float32], upper: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Centre and extent of a crop around half of the labelled points; None if that is not possible.

        As in mmpose 0.x, the other half is all points except the body points above the hips: legs and feet, but also
        face and hands. The upper half is preferred if a standard normal number is below 0.5, which it is in 69 %.
        """
        prefer_upper = rng.standard_normal() < 0.5
        chosen = points[upper] if (prefer_upper and upper.sum() > 2) or (~upper).sum() <= 2 else points[~upper]
        if len(chosen) < 2:
            return None
        size = (chosen.max(0) - chosen.min(0)).astype(np.float64)
        if not size.any():
            return None
        return chosen.mean(0).astype(np.float64), 1.5 * fit_aspect(size, self.input_size)

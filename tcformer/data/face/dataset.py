"""WFLW: the official lists of faces with 98 landmarks, and samples from them.

Files under a data root:

    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt
    WFLW_images/<event>/<name>.jpg

A line is a face and has 207 fields: 98 points x, y in pixels, a detector's box x_min, y_min, x_max, y_max, the
six flags of `landmarks.ATTRIBUTES`, and the image's name under WFLW_images. The box does not contain the
landmarks, so like HRNet and mmpose the crops are made around the landmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.data.crops import centre_and_extent, crop_matrix, transform_points
from tcformer.data.face.landmarks import ATTRIBUTES, EYE_CORNERS, FLIP, NUM_LANDMARKS
from tcformer.data.images import missing_files, normalise, read_image
from tcformer.errors import UserError
from tcformer.parameters import parameters

FaceSplit = Literal["train", "test"]

_COORDINATES: Final = 2 * NUM_LANDMARKS
_FLAGS: Final = slice(_COORDINATES + 4, _COORDINATES + 4 + len(ATTRIBUTES))
_FIELDS: Final = _FLAGS.stop + 1
_BOX_NAMES: Final = ("x_min", "y_min", "x_max", "y_max")
_MOST_TOLD: Final = 10


def list_file(root: Path, split: FaceSplit) -> Path:
    """The official list of a split under a data root."""
    return root / "WFLW_annotations/list_98pt_rect_attr_train_test" / f"list_98pt_rect_attr_{split}.txt"


def face_image_folder(root: Path) -> Path:
    """The image folder under a data root."""
    return root / "WFLW_images"


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of a list as arrays, in the file's order."""

    #: the file they come from
    source: Path
    #: (N,) image names under the image folder; several faces may share one
    names: tuple[str, ...]
    #: (N, 98, 2) float64 x, y in pixels
    points: NDArray[np.float64]
    #: (N, 4) float64 x_min, y_min, x_max, y_max in pixels, of a face detector
    box: NDArray[np.float64]
    #: (N, 6) bool, in the order of `landmarks.ATTRIBUTES`
    attributes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)


def load_faces(path: Path) -> Faces:
    """Read and check an official list.

    Raises:
        UserError: the file is missing or breaks the format; the message gives line, field, what was expected
            and what was found for the first ten wrong lines, and the number of all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; expected the official WFLW layout under the data root; run the prepare stage, "
            f"or set the data root to where the files are"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); fetch the file again") from error
    names, numbers, problems = [], [], []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        values = _checked_numbers(fields)
        if isinstance(values, str):
            problems.append(f"line {number}: {values}")
        else:
            names.append(fields[-1])
            numbers.append(values)
    if problems:
        raise UserError(
            f"{path}: {_told(problems)}; correct the {'lines' if len(problems) > 1 else 'line'} or fetch the file again"
        )
    table = np.array(numbers, np.float64).reshape(-1, _FIELDS - 1)
    return Faces(
        source=path,
        names=tuple(names),
        points=table[:, :_COORDINATES].reshape(-1, NUM_LANDMARKS, 2),
        box=table[:, _COORDINATES : _FLAGS.start],
        attributes=table[:, _FLAGS].astype(bool),
    )


def _checked_numbers(fields: Sequence[str]) -> list[float] | str:
    """The 206 numbers of a good line, or what is wrong with it."""
    if len(fields) != _FIELDS:
        return f"expected {_FIELDS} fields (98 x y, 4 of the box, 6 flags, image name), found {len(fields)}"
    values = []
    for index, text in enumerate(fields[:-1]):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if index >= _FLAGS.start:
            if text not in ("0", "1"):
                return f"field {index + 1} ({_name(index)}): expected 0 or 1, found {text:.20}"
        elif not math.isfinite(value):
            return f"field {index + 1} ({_name(index)}): expected a finite number of pixels, found {text:.20}"
        values.append(value)
    name = PurePosixPath(fields[-1])
    if name.is_absolute() or ".." in name.parts:
        return f"field {_FIELDS} (image name): expected a path below the image folder, found {fields[-1]:.80}"
    right, left = (values[2 * point : 2 * point + 2] for point in EYE_CORNERS)
    if right == left:
        return (
            f"fields {2 * EYE_CORNERS[0] + 1} and {2 * EYE_CORNERS[1] + 1} (outer eye corners, points "
            f"{EYE_CORNERS[0]} and {EYE_CORNERS[1]}): expected two places, found both at ({left[0]:g}, {left[1]:g})"
        )
    return values


def _name(index: int) -> str:
    """What the field at an index holds."""
    if index < _COORDINATES:
        return f"{'xy'[index % 2]} of point {index // 2}"
    if index < _FLAGS.start:
        return f"box {_BOX_NAMES[index - _COORDINATES]}"
    return f"flag {ATTRIBUTES[index - _FLAGS.start]}"


def _told(problems: Sequence[str]) -> str:
    rest = f" (the first {_MOST_TOLD} of {len(problems)})" if len(problems) > _MOST_TOLD else ""
    return "; ".join(problems[:_MOST_TOLD]) + rest


def check_face_images(faces: Faces, folder: Path) -> None:
    """Make sure that every image of the faces is there.

    Raises:
        UserError: names list, line and image of the first ten missing ones, and their number.
    """
    first_line: dict[str, int] = {}
    for index, name in enumerate(faces.names):
        first_line.setdefault(name, index + 1)
    absent = set(missing_files(folder, first_line))
    missing = [f"{name} (face {number})" for name, number in first_line.items() if name in absent]
    if missing:
        told = ", ".join(missing[:_MOST_TOLD]) + (", ..." if len(missing) > _MOST_TOLD else "")
        raise UserError(
            f"{folder}: {len(missing)} of {len(first_line)} images that {faces.source} names are missing: {told}; "
            f"unpack the image archive there or run the prepare stage"
        )


def face_crops(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes around landmarks as HRNet and mmpose take them: whole pixels, the low ends rounded down and the
    high ends up.

    Args:
        points: (N, 98, 2) pixels.

    Returns:
        (N, 4) x, y, width, height in pixels.
    """
    low, high = np.floor(points.min(1)), np.ceil(points.max(1))
    return np.concatenate([low, high - low], 1)


@parameters
class FaceAugmentation:
    """Random changes to a training crop, in the order in which they are drawn."""

    #: largest relative change of the crop's size
    scale: float
    #: largest rotation in degrees
    rotation: float
    #: probability of rotating
    rotation_probability: float
    #: probability of mirroring
    flip_probability: float


class FaceDataset:
    """Crops of faces as samples for the network.

    A sample holds
        image: (3, height, width) float32, RGB normalised by the ImageNet mean and standard deviation
        points: (98, 2) float32 x, y in pixels of `image`
        weights: (98,) float32, all 1
        centre, extent: (2,) float32, the crop in image pixels (with augmentation: after it)
        index: int

    Args:
        faces: what to crop.
        folder: where the images are.
        input_size: (height, width) of the network's input.
        padding: factor by which the crop exceeds the longer side of the landmarks' box.
        augmentation: used where `sample` is given a generator; without it such a sample is the plain one.
    """

    def __init__(
        self,
        faces: Faces,
        folder: Path,
        input_size: tuple[int, int],
        padding: float,
        augmentation: FaceAugmentation | None = None,
    ) -> None:
        check_face_images(faces, folder)
        self.faces = faces
        self.folder = folder
        self.input_size = input_size
        self.augmentation = augmentation
        #: (N, 2) x, y and width, height of the plain crops in image pixels
        self.centre, self.extent = centre_and_extent(face_crops(faces.points), input_size, padding)

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def num_images(self) -> int:
        """Image files among which the samples are; faces share some."""
        return len(set(self.faces.names))

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """The crop `index`; augmented if a generator is given, from which alone all randomness comes."""
        import cv2

        image = read_image(self.folder / self.faces.names[index])
        centre, extent, rotation, flip = self.centre[index], self.extent[index], 0.0, False
        if rng is not None and self.augmentation is not None:
            options = self.augmentation
            extent = extent * (1 + options.scale * rng.uniform(-1, 1))
            angle = options.rotation * rng.uniform(-1, 1)
            rotation = angle if rng.random() < options.rotation_probability else 0.0
            flip = bool(rng.random() < options.flip_probability)
            if flip:
                centre = np.array([image.shape[1] - 1 - centre[0], centre[1]])
        matrix = crop_matrix(centre, extent, rotation, self.input_size, image.shape[1] if flip else None)
        height, width = self.input_size
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        points = transform_points(self.faces.points[index], matrix).astype(np.float32)
        return {
            "image": normalise(crop),
            "points": points[FLIP] if flip else points,
            "weights": np.ones(NUM_LANDMARKS, np.float32),
            "centre": centre.astype(np.float32),
            "extent": extent.astype(np.float32),
            "index": index,
        }

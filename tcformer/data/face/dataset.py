"""WFLW: the official lists of faces with 98 landmarks, and samples from them.

Files below a data root:

    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt
    WFLW_images/<event>/<name>.jpg

A line describes a face in 207 fields: 98 points x, y in pixels, the box x_min, y_min, x_max, y_max of a face detector,
the six flags of `landmarks.ATTRIBUTES`, and the image name below WFLW_images. The box does not contain all landmarks,
so the crops are made around the landmarks, as in HRNet and mmpose.

The lists in WFLW_annotations/list_98pt_test, of the test set and of each subset, have no box and no flags: 197 fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import is_below_folder
from tcformer.data.crops import centre_and_extent, crop_matrix, cut_crop, transform_points
from tcformer.data.face.landmarks import ATTRIBUTES, EYE_CORNERS, FLIP, NUM_LANDMARKS
from tcformer.data.images import check_images, normalise, read_image
from tcformer.errors import UserError
from tcformer.parameters import parameters

FaceSplit = Literal["train", "test"]

_COORDINATES: Final = 2 * NUM_LANDMARKS
_FLAGS: Final = slice(_COORDINATES + 4, _COORDINATES + 4 + len(ATTRIBUTES))
_FIELDS: Final = _FLAGS.stop + 1
_SHORT_FIELDS: Final = _COORDINATES + 1  # of the lists in list_98pt_test
_BOX_NAMES: Final = ("x_min", "y_min", "x_max", "y_max")
_MOST_PROBLEMS: Final = 10  # in an error message


def list_file(root: Path, split: FaceSplit) -> Path:
    """The official list of a split below a data root."""
    return root / "WFLW_annotations/list_98pt_rect_attr_train_test" / f"list_98pt_rect_attr_{split}.txt"


def face_image_folder(root: Path) -> Path:
    """The image folder below a data root."""
    return root / "WFLW_images"


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of a list as arrays, in the order of the file.

    Attributes:
        source: the list.
        names: (N,) image names below the image folder. Several faces may be on one image.
        points: (N, 98, 2) float64 x, y in pixels.
        box: (N, 4) float64 x_min, y_min, x_max, y_max in pixels, of a face detector; in a list without boxes those of
            the landmarks.
        attributes: (N, 6) bool, in the order of `landmarks.ATTRIBUTES`; all false in a list without flags.
    """

    source: Path
    names: tuple[str, ...]
    points: NDArray[np.float64]
    box: NDArray[np.float64]
    attributes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)


def load_faces(path: Path) -> Faces:
    """Read and check an official list.

    Raises:
        UserError: the file does not exist or breaks the format. The message gives the number of wrong lines, and for
            the first ten of them the line, the field, what was expected and what was found.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; expected the official WFLW layout under the data root; run the prepare stage, "
            f"or set the data root to where the files are"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); download the file again") from error
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
        rest = f" (the first {_MOST_PROBLEMS} of {len(problems)})" if len(problems) > _MOST_PROBLEMS else ""
        raise UserError(
            f"{path}: {'; '.join(problems[:_MOST_PROBLEMS])}{rest}; correct the "
            f"{'lines' if len(problems) > 1 else 'line'} or download the file again"
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
    """The 206 numbers of a line, or what is wrong with it. A line of 197 fields gets the landmarks' box and no flag."""
    if len(fields) not in (_FIELDS, _SHORT_FIELDS):
        return (
            f"expected {_FIELDS} fields (98 x y, 4 of the box, 6 flags, image name), or {_SHORT_FIELDS} without box "
            f"and flags, found {len(fields)}"
        )
    values: list[float] = []
    for index, text in enumerate(fields[:-1]):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if index >= _FLAGS.start:
            if text not in ("0", "1"):
                return f"field {index + 1} ({_field_name(index)}): expected 0 or 1, found {text:.20}"
        elif not math.isfinite(value):
            return f"field {index + 1} ({_field_name(index)}): expected a finite number of pixels, found {text:.20}"
        values.append(value)
    if not is_below_folder(fields[-1]):
        return f"field {len(fields)} (image name): expected a path below the image folder, found {fields[-1]:.80}"
    right, left = (values[2 * point : 2 * point + 2] for point in EYE_CORNERS)
    if right == left:
        return (
            f"fields {2 * EYE_CORNERS[0] + 1} and {2 * EYE_CORNERS[1] + 1} (outer eye corners, points "
            f"{EYE_CORNERS[0]} and {EYE_CORNERS[1]}): expected two places, found both at ({left[0]:g}, {left[1]:g})"
        )
    if len(fields) == _SHORT_FIELDS:
        xs, ys = values[::2], values[1::2]
        values += [min(xs), min(ys), max(xs), max(ys), *[0.0] * len(ATTRIBUTES)]
    return values


def _field_name(index: int) -> str:
    """What the field at an index (counted from 0) contains."""
    if index < _COORDINATES:
        return f"{'xy'[index % 2]} of point {index // 2}"
    if index < _FLAGS.start:
        return f"box {_BOX_NAMES[index - _COORDINATES]}"
    return f"flag {ATTRIBUTES[index - _FLAGS.start]}"


def face_crops(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes around landmarks, as in HRNet and mmpose: in whole pixels, rounded outwards.

    Args:
        points: (N, 98, 2) pixels.

    Returns:
        (N, 4) x, y, width, height in pixels.
    """
    low, high = np.floor(points.min(1)), np.ceil(points.max(1))
    return np.concatenate([low, high - low], 1)


@parameters
class FaceAugmentation:
    """Random changes of a training crop, in the order in which they are drawn."""

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

    A sample contains
        image: (3, height, width) float32, RGB normalised by the ImageNet mean and standard deviation
        points: (98, 2) float32 x, y in pixels of `image`
        weights: (98,) float32, all 1
        centre, extent: (2,) float32, the crop in image pixels, after augmentation
        index: int

    Args:
        faces: the faces to crop.
        folder: the image folder.
        input_size: (height, width) of the network's input.
        padding: factor by which the crop is larger than the longer side of the box around the landmarks.
        augmentation: is applied if `sample` gets a generator; None for no augmentation.

    Raises:
        UserError: images are missing.
    """

    def __init__(
        self,
        faces: Faces,
        folder: Path,
        input_size: tuple[int, int],
        padding: float,
        augmentation: FaceAugmentation | None = None,
    ) -> None:
        first = {name: index + 1 for index, name in reversed(list(enumerate(faces.names)))}
        check_images(folder, first, f"images that {faces.source} names", lambda name: f"face {first[name]}")
        self.faces = faces
        self.folder = folder
        self.input_size = input_size
        self.augmentation = augmentation
        #: (N, 2) x, y and width, height of the crops without augmentation, in image pixels
        self.centre, self.extent = centre_and_extent(face_crops(faces.points), input_size, padding)

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def num_images(self) -> int:
        """Number of image files. Several faces may be on one image."""
        return len(set(self.faces.names))

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make the crop `index`. It is augmented if there is a generator, from which all randomness comes."""

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
        crop = cut_crop(image, matrix, self.input_size)
        points = transform_points(self.faces.points[index], matrix).astype(np.float32)
        return {
            "image": normalise(crop),
            "points": points[FLIP] if flip else points,
            "weights": np.ones(NUM_LANDMARKS, np.float32),
            "centre": centre.astype(np.float32),
            "extent": extent.astype(np.float32),
            "index": index,
        }

"""The people of an annotation file, in the one form that all such files are brought to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import GENDERS
from tcformer.body.joints import NUM_OPENPOSE, SPIN_NAMES
from tcformer.errors import UserError

Float32 = NDArray[np.float32]

NUM_KEYPOINTS: Final = len(SPIN_NAMES)
NUM_POINTS_3D: Final = NUM_KEYPOINTS - NUM_OPENPOSE

#: Side of a box of scale 1, pixels.
BOX_UNIT: Final = 200.0

#: SPIN's, of a box around 2D points
MARGIN: Final = 1.2

FETCH: Final = "correct it or fetch the file again"


@dataclass(frozen=True, eq=False)
class Bodies:
    """The people of a file, one a row."""

    #: image files, relative to the data set's image folder
    image: tuple[str, ...]
    #: (N, 2) float64 centre of the box in image pixels
    centre: NDArray[np.float64]
    #: (N,) float64 side of the box / 200 pixels
    scale: NDArray[np.float64]
    #: (N, 72) axis-angle of SMPL's joints, the root's in the camera's axes; zeros where unknown
    pose: Float32
    #: (N, 10) shape coefficients; zeros where unknown
    shape: Float32
    #: (N,) bool, whether pose and shape are known
    has_smpl: NDArray[np.bool_]
    #: (N, 49, 3) x, y in image pixels, confidence: `tcformer.body.joints.SPIN_NAMES`
    keypoints: Float32
    #: (N, 24, 4) x, y, z in metres and the camera's axes, confidence: the last 24 of SPIN_NAMES
    joints: Float32
    #: (N,) int64, index in `tcformer.body.files.GENDERS`
    gender: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)


def genders(letters: Sequence[str], count: int) -> NDArray[np.int64]:
    """(count,) indices in GENDERS; neutral where nothing is said."""
    names = {"m": GENDERS.index("male"), "f": GENDERS.index("female")}
    neutral = GENDERS.index("neutral")
    return np.array([names.get(letter, neutral) for letter in letters] or [neutral] * count, np.int64)


def check_bodies(bodies: Bodies, where: Callable[[int], str]) -> None:
    """Raise UserError for the first row whose image name leaves its folder or whose box is empty."""
    for row, name in enumerate(bodies.image):
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise UserError(
                f"{where(row)}: image name: expected a path below the image folder, found {name!r}; {FETCH}"
            )
    empty = bodies.scale <= 0
    if empty.any():
        row = int(empty.argmax())
        raise UserError(f"{where(row)}: box: expected a scale above 0, found {bodies.scale[row]:g}; {FETCH}")


def boxes_around(points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) and scales (N,) of the boxes around the points (N, K, 3) of a confidence above 0."""
    seen = points[:, :, 2:] > 0
    low = np.where(seen, points[:, :, :2], np.inf).min(1)
    high = np.where(seen, points[:, :, :2], -np.inf).max(1)
    return (low + high) / 2, MARGIN * (high - low).max(1) / BOX_UNIT


def numbers(where: str, field: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field of a JSON record as an array. Raises UserError unless it holds finite numbers of the shape."""
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fi" or array.shape != shape or not np.isfinite(array).all():
        raise UserError(
            f"{where}: field '{field}': expected finite numbers of shape {shape}, found {values!r:.60}; {FETCH}"
        )
    return array.astype(np.float64)

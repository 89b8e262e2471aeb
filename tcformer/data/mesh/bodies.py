"""The people of an annotation file, in the one form that all such files are brought to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import GENDERS
from tcformer.body.joints import NUM_OPENPOSE, SPIN_NAMES
from tcformer.checks import REPAIR, is_below_folder
from tcformer.data.crops import SCALE_UNIT
from tcformer.errors import UserError

Float32 = NDArray[np.float32]

NUM_KEYPOINTS: Final = len(SPIN_NAMES)
NUM_POINTS_3D: Final = NUM_KEYPOINTS - NUM_OPENPOSE

#: SPIN's, of a box around 2D points
MARGIN: Final = 1.2


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
        if not is_below_folder(name):
            raise UserError(
                f"{where(row)}: image name: expected a path below the image folder, found {name!r}; {REPAIR}"
            )
    empty = bodies.scale <= 0
    if empty.any():
        row = int(empty.argmax())
        raise UserError(f"{where(row)}: box: expected a scale above 0, found {bodies.scale[row]:g}; {REPAIR}")


def boxes_around(points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) and scales (N,) of the boxes around the points (N, K, 3) of a confidence above 0."""
    seen = points[:, :, 2:] > 0
    low = np.where(seen, points[:, :, :2], np.inf).min(1)
    high = np.where(seen, points[:, :, :2], -np.inf).max(1)
    return (low + high) / 2, MARGIN * (high - low).max(1) / SCALE_UNIT

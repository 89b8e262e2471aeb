"""The people of an annotation file, in one form for all kinds of files."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

#: SPIN's factor by which a box is larger than the 2D points.
MARGIN: Final = 1.2

_GENDER_NAMES: Final = {
    **{spelling: index for index, gender in enumerate(GENDERS) for spelling in (gender, gender[0])},
    "": GENDERS.index("neutral"),
}


@dataclass(frozen=True, eq=False)
class Bodies:
    """The people of a file.

    Attributes:
        image: (N,) image files, relative to the image folder of the dataset.
        centre: (N, 2) float64 centre of the box, image pixels.
        scale: (N,) float64 side of the box, in units of 200 pixels.
        pose: (N, 72) axis-angle vectors of SMPL's joints, the root's in camera axes; 0 if unknown.
        shape: (N, 10) shape coefficients; 0 if unknown.
        has_smpl: (N,) bool, whether pose and shape are known.
        keypoints: (N, 49, 3) x, y in image pixels, confidence, of `tcformer.body.joints.SPIN_NAMES`.
        joints: (N, 24, 4) x, y, z in metres in camera axes, confidence, of the last 24 of SPIN_NAMES.
        gender: (N,) int64, index in `tcformer.body.files.GENDERS`.
        image_size: (N, 2) int64 width, height of the images as their file says; (0, 2) if it does not.
    """

    image: tuple[str, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    pose: Float32
    shape: Float32
    has_smpl: NDArray[np.bool_]
    keypoints: Float32
    joints: Float32
    gender: NDArray[np.int64]
    image_size: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def __len__(self) -> int:
        return len(self.image)


def genders(texts: Sequence[object], count: int, where: Callable[[int], str] = str) -> NDArray[np.int64]:
    """Indices (count,) in GENDERS of genders as datasets spell them; without any, all are neutral.

    Args:
        texts: "m", "f", "n" or the words, in any case, as text or bytes; an empty text is neutral.
        count: number of people.
        where: the file, row and field of a row's index, for the message.

    Raises:
        UserError: a text is another one.
    """
    neutral = GENDERS.index("neutral")
    found = np.full(count, neutral, np.int64)
    for row, text in enumerate(texts):
        name = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        index = _GENDER_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
        if index is None:
            raise UserError(
                f"{where(row)}: expected a gender, one of {', '.join(GENDERS)} or their first letters, found "
                f"{reprlib.repr(text)}; {REPAIR}"
            )
        found[row] = index
    return found


def check_bodies(bodies: Bodies, where: Callable[[int], str]) -> None:
    """Raise UserError for the first row with an image name outside the image folder or with an empty box.

    Args:
        bodies: the people of a file.
        where: the file and the place in it of a row's index, for the message.
    """
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
    """Centres (N, 2) and scales (N,) of the boxes around those of the points (N, K, 3) with a confidence above 0."""
    seen = points[:, :, 2:] > 0
    low = np.where(seen, points[:, :, :2], np.inf).min(1)
    high = np.where(seen, points[:, :, :2], -np.inf).max(1)
    return (low + high) / 2, MARGIN * (high - low).max(1) / SCALE_UNIT

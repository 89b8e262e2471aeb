"""The boxes of people or faces in a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.errors import UserError


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes in one picture.

    Attributes:
        xywh: (P, 4) float64 x, y, width, height in pixels.
        scores: (P,) float64 confidence of each box; 1 if it was not detected.
        ids: (P,) int64 number of the annotated person or face; 0 if there is none.

    Raises:
        UserError: a box is empty or not finite.
    """

    xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        wrong = ~(np.isfinite(self.xywh).all(1) & (self.xywh[:, 2:] > 0).all(1))
        if wrong.any():
            raise UserError(
                f"box {self.xywh[int(wrong.argmax())].tolist()}: expected finite x, y, width and height in pixels, the "
                "last two above 0; correct or remove it"
            )

    def __len__(self) -> int:
        return len(self.xywh)

    @classmethod
    def of(cls, xywh: ArrayLike) -> Boxes:
        """Boxes without scores and numbers.

        Args:
            xywh: (P, 4), or (4,) for one box.

        Raises:
            UserError: see above, or the shape is another one.
        """
        try:
            array = np.asarray(xywh, np.float64)
        except (TypeError, ValueError):
            array = np.empty((0, 0))
        array = array.reshape(-1, 4) if array.shape in ((4,), (0,)) else array
        if array.ndim != 2 or array.shape[1] != 4:
            raise UserError(f"boxes: expected lists of x, y, width, height in pixels, found {xywh!r:.80}; correct them")
        return cls(array, np.ones(len(array)), np.zeros(len(array), np.int64))

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Boxes:
        """One box that is a whole picture of (height, width) pixels."""
        return cls.of([0, 0, size[1], size[0]])

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Boxes:
        """Some of the boxes."""
        return Boxes(self.xywh[rows], self.scores[rows], self.ids[rows])

    def check_inside(self, size: tuple[int, int], name: str) -> None:
        """Raise UserError if a box has no pixel in a picture of (height, width) pixels, called `name`."""
        x, y, width, height = self.xywh.T
        outside = (x >= size[1]) | (y >= size[0]) | (x + width <= 0) | (y + height <= 0)
        if outside.any():
            raise UserError(
                f"{name}: the box {self.xywh[int(outside.argmax())].tolist()} is outside of its {size[1]} x {size[0]} "
                "pixels; expected x, y, width, height in pixels of this picture; correct the box"
            )

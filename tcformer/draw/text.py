"""Small text on pictures, in the outline font that OpenCV carries (no font files needed)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

INK = (32, 32, 32)
QUIET_INK = (105, 105, 105)


def write(
    picture: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    *,
    size: int = 13,
    bold: bool = False,
    colour: tuple[int, int, int] = INK,
    anchor: Literal["start", "middle"] = "start",
) -> None:
    """Write one line into the picture, in place.

    Args:
        picture: (H, W, 3) uint8 RGB, changed.
        text: one line.
        at: x, y in pixels of the base line's start or middle.
        size: height of the font in pixels.
        bold: heavy letters.
        colour: RGB.
        anchor: which point of the line lies at x.
    """
    font = cv2.FontFace("sans")
    weight = 600 if bold else 400
    x, y = at
    if anchor == "middle":
        x -= text_width(text, size=size, bold=bold) // 2
    cv2.putText(picture, text, (x, y), colour, font, size, weight)


def text_width(text: str, *, size: int = 13, bold: bool = False) -> int:
    """Width of one line in pixels."""
    box = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), size, 600 if bold else 400)
    return int(box[2])

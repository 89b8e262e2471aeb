"""Small text on pictures, in the outline font that is part of OpenCV (no font files are needed)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

TEXT_COLOUR = (32, 32, 32)
#: Of text that is less important.
GREY = (105, 105, 105)


def write_text(
    picture: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    *,
    size: int = 13,
    bold: bool = False,
    colour: tuple[int, int, int] = TEXT_COLOUR,
    anchor: Literal["start", "middle"] = "start",
) -> None:
    """Write one line of text into a picture, in place.

    Args:
        picture: (H, W, 3) uint8 RGB, changed in place.
        text: the line.
        at: x, y in pixels of the anchor on the baseline.
        size: font size, pixels.
        bold: whether the letters are bold.
        colour: RGB.
        anchor: the point of the line that lies at x.
    """
    x, y = at
    if anchor == "middle":
        x -= text_width(text, size=size, bold=bold) // 2
    cv2.putText(picture, text, (x, y), colour, cv2.FontFace("sans"), size, _weight(bold))


def text_width(text: str, *, size: int = 13, bold: bool = False) -> int:
    """Width of one line of text, pixels."""
    box = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), size, _weight(bold))
    return int(box[2])


def _weight(bold: bool) -> int:
    return 600 if bold else 400

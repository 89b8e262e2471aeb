"""Lines and dots between pixels, in the colours that all drawn points share."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.draw.regions import enlarge

Colour = tuple[int, int, int]

LEFT: Colour = (52, 211, 80)
RIGHT: Colour = (255, 138, 30)
MIDDLE: Colour = (64, 156, 255)
TRUTH: Colour = (255, 255, 255)
CASING: Colour = (24, 24, 24)

# Lines are drawn twice as large and averaged down, because OpenCV's thinnest line is one pixel.
FINE = 2
# cv2 takes whole numbers with this many bits behind the point.
_SHIFT = 4


def fine_canvas(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) enlarged to draw on: FINE times as large as the picture of that scale."""
    return enlarge(image, scale * FINE)


def averaged(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was drawn on a `fine_canvas`, in the picture's size."""
    height, width = canvas.shape[:2]
    small = cv2.resize(canvas, (width // FINE, height // FINE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def on_canvas(points: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Points (..., 2 or more) in pixels of the image, their first two values in pixels of its `fine_canvas`."""
    placed = points.copy()
    placed[..., :2] = (points[..., :2] + 0.5) * (scale * FINE) - 0.5
    return placed


def extent(points: NDArray[np.float64]) -> float:
    """Side of the square as large as the box around (n, 2 or more) points, at least 1."""
    if len(points) == 0:
        return 1.0
    return float(np.sqrt(np.prod(np.maximum(np.ptp(points[:, :2], axis=0), 1.0))))


def line_width(points: NDArray[np.float64], share: float, least: float, most: float) -> float:
    """A width that is a share of the points' extent, within bounds."""
    return min(max(share * extent(points), least), most)


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    """A point as cv2 takes it with `_SHIFT`."""
    x, y = np.rint(np.clip(point[:2], -1e5, 1e5) * 2**_SHIFT).astype(int)
    return int(x), int(y)


def line(
    canvas: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], colour: Colour, width: float
) -> None:
    """A smooth line."""
    cv2.line(canvas, _fixed(a), _fixed(b), colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def dot(canvas: NDArray[np.uint8], at: NDArray[np.float64], colour: Colour, radius: float) -> None:
    """A smooth filled circle."""
    cv2.circle(canvas, _fixed(at), round(radius * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def mask_line(mask: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> None:
    """Ones along a thick line."""
    cv2.line(mask, _fixed(a), _fixed(b), 1, max(1, round(width)), cv2.LINE_8, _SHIFT)


def mask_hull(mask: NDArray[np.uint8], points: NDArray[np.float64], margin: float) -> None:
    """Ones in the hull of (n, 2 or more) points, widened by a margin in pixels."""
    if len(points) == 0:
        return
    whole = np.rint(points[:, :2]).astype(np.int32)
    hull = cv2.convexHull(whole)
    cv2.fillConvexPoly(mask, hull, 1)
    cv2.polylines(mask, [hull], True, 1, max(1, round(2 * margin)))

"""A canvas for lines and dots between pixels, and what all drawings of points share: colours, checks, contours."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.draw.pictures import enlarge

Colour = tuple[int, int, int]

#: Colours of the person's left side, right side and middle, and of annotated points.
LEFT: Colour = (52, 211, 80)
RIGHT: Colour = (255, 138, 30)
MIDDLE: Colour = (64, 156, 255)
TRUTH: Colour = (255, 255, 255)
#: Colour of the thin border around lines and dots.
OUTLINE: Colour = (24, 24, 24)

# The canvas is larger than the picture and averaged at the end, because the thinnest line of OpenCV is one pixel.
_SUPERSAMPLING = 2
# OpenCV takes coordinates as integers with this number of fractional bits.
_FRACTIONAL_BITS = 4
_LINE_WIDTH = 0.12  # of the lines in a skeleton's mask, in lengths of the object


def new_canvas(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """A canvas for a picture (H * scale, W * scale, 3) of an image (H, W, 3), with the image on it.

    Raises:
        ValueError: if the image is no picture, or the scale is below 1.
    """
    return enlarge(image, scale * _SUPERSAMPLING)


def finished(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture that was drawn on a canvas."""
    height, width = canvas.shape[:2]
    size = (width // _SUPERSAMPLING, height // _SUPERSAMPLING)
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_canvas(points: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Points (..., 2 or more) with their first two values converted from pixels of the image to those of its canvas."""
    placed = points.copy()
    placed[..., :2] = (points[..., :2] + 0.5) * (scale * _SUPERSAMPLING) - 0.5
    return placed


def checked_points(points: NDArray[np.floating], count: int, name: str) -> NDArray[np.float64]:
    """The points of one or more people as (P, count, 3) float64.

    Args:
        points: (count, 3) or (P, count, 3): x, y and a confidence.
        count: the number of points per person.
        name: of the argument, for the message.

    Raises:
        ValueError: if the shape is wrong or a value is not finite.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-2:] != (count, 3) or array.ndim > 3:
        raise ValueError(f"{name} has shape {array.shape}; expected ({count}, 3) or (P, {count}, 3)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds coordinates or confidences that are not finite; expected finite numbers")
    return array.reshape(-1, count, 3)


class DrawPoints(Protocol):
    """A function that draws the points of one person or face, given in pixels of the image, on a canvas."""

    def __call__(
        self, canvas: NDArray[np.uint8], points: NDArray[np.float64], threshold: float, scale: int, *, is_truth: bool
    ) -> None: ...


def draw_all(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    truth: NDArray[np.floating] | None,
    count: int,
    draw: DrawPoints,
    *,
    scale: int,
    threshold: float,
) -> NDArray[np.uint8]:
    """Draw the points of all people or faces on a picture, above the annotated ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (count, 3) or (P, count, 3): x and y in pixels of the image, and a confidence.
        truth: the annotated points in the same form; those whose third value is above 0 are labelled.
        count: the number of points per person.
        draw: draws one person.
        scale: integer factor by which the picture is larger than the image.
        threshold: points whose confidence is not above it are not drawn.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    canvas = new_canvas(image, scale)
    if truth is not None:
        for one in checked_points(truth, count, "truth"):
            draw(canvas, one, 0.0, scale, is_truth=True)
    for one in checked_points(points, count, "points"):
        draw(canvas, one, threshold, scale, is_truth=False)
    return finished(canvas)


def contour_lines(contours: Iterable[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    """The lines of contours as pairs of points.

    Args:
        contours: first point and last point of each contour, and whether it is closed.
    """
    for first, last, closed in contours:
        yield from pairwise([*range(first, last + 1), *([first] if closed else [])])


def extent(points: NDArray[np.float64]) -> float:
    """Side of the square with the area of the bounding box of (n, 2 or more) points, at least 1."""
    if len(points) == 0:
        return 1.0
    return float(np.sqrt(np.prod(np.maximum(np.ptp(points[:, :2], axis=0), 1.0))))


def line_width(points: NDArray[np.float64], share: float, least: float, most: float) -> float:
    """A line width that is a share of the points' `extent`, within limits."""
    return min(max(share * extent(points), least), most)


def line(
    canvas: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], colour: Colour, width: float
) -> None:
    """Draw an anti-aliased line."""
    cv2.line(canvas, _fixed_point(a), _fixed_point(b), colour, max(1, round(width)), cv2.LINE_AA, _FRACTIONAL_BITS)


def dot(canvas: NDArray[np.uint8], at: NDArray[np.float64], colour: Colour, radius: float) -> None:
    """Draw an anti-aliased filled circle."""
    cv2.circle(
        canvas, _fixed_point(at), round(radius * 2**_FRACTIONAL_BITS), colour, cv2.FILLED, cv2.LINE_AA, _FRACTIONAL_BITS
    )


def mask_line(mask: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> None:
    """Set a mask to 1 along a line."""
    cv2.line(mask, _fixed_point(a), _fixed_point(b), 1, max(1, round(width)), cv2.LINE_8, _FRACTIONAL_BITS)


def mask_hull(mask: NDArray[np.uint8], points: NDArray[np.float64], margin: float) -> None:
    """Set a mask to 1 in the convex hull of (n, 2 or more) points, widened by a margin in pixels."""
    if len(points) == 0:
        return
    whole = np.rint(points[:, :2]).astype(np.int32)
    hull = cv2.convexHull(whole)
    cv2.fillConvexPoly(mask, hull, 1)
    cv2.polylines(mask, [hull], True, 1, max(1, round(2 * margin)))


def skeleton_mask(
    points: NDArray[np.floating], image_size: tuple[int, int], skeleton: Iterable[tuple[int, int]]
) -> NDArray[np.bool_]:
    """An approximate silhouette from keypoints: thick lines of a skeleton; without lines, the convex hull.

    Args:
        points: (K, 3) x, y in pixels, and above 0 if labelled.
        image_size: height and width of the mask, pixels.
        skeleton: pairs of points.
    """
    mask = np.zeros(image_size, np.uint8)
    placed = np.asarray(points, np.float64)
    seen = placed[:, 2] > 0
    lines = [(a, b) for a, b in skeleton if seen[a] and seen[b]]
    for a, b in lines:
        mask_line(mask, placed[a], placed[b], _LINE_WIDTH * extent(placed[seen]))
    if not lines:
        mask_hull(mask, placed[seen], 0.0)
    return mask.astype(bool)


def _fixed_point(point: NDArray[np.float64]) -> tuple[int, int]:
    """A point in the fixed-point numbers that OpenCV takes."""
    x, y = np.rint(np.clip(point[:2], -1e5, 1e5) * 2**_FRACTIONAL_BITS).astype(int)
    return int(x), int(y)

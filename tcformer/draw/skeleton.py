"""Any keypoints drawn on pictures: a dot for every point, the lines of a skeleton, coloured by side."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tcformer.draw.canvas import (
    LEFT,
    MIDDLE,
    OUTLINE,
    RIGHT,
    TRUTH,
    Colour,
    dot,
    draw_all,
    line,
    line_width,
    to_canvas,
)

_OF_SIDE: dict[int | None, Colour] = {0: LEFT, 1: RIGHT, None: MIDDLE}
_MANY_POINTS = 40  # as of faces, whose points are close together


def skeleton_painter(
    skeleton: Sequence[tuple[int, int]], sides: Sequence[int | None]
) -> Callable[..., NDArray[np.uint8]]:
    """A function with the arguments of `tcformer.draw.keypoints` that draws other points than COCO-WholeBody's.

    The object's left side is green, the right side orange and the middle blue, as are lines between the sides.

    Args:
        skeleton: pairs of points that are connected by a line.
        sides: for each of the K points 0 if it is on the left, 1 if it is on the right, None in the middle.
    """
    return partial(_draw_all, skeleton=tuple(skeleton), sides=tuple(sides))


def _draw_all(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    skeleton: tuple[tuple[int, int], ...],
    sides: tuple[int | None, ...],
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
    threshold: float = 0.3,
) -> NDArray[np.uint8]:
    draw = partial(_draw_one, skeleton=skeleton, sides=sides)
    return draw_all(image, points, truth, len(sides), draw, scale=scale, threshold=threshold)


def _draw_one(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    threshold: float,
    scale: int,
    *,
    is_truth: bool,
    skeleton: tuple[tuple[int, int], ...],
    sides: tuple[int | None, ...],
) -> None:
    """Draw the points (K, 3) of one object, given in pixels of the image, on the canvas."""
    seen = points[:, 2] > threshold
    placed = to_canvas(points, scale)
    many = len(points) > _MANY_POINTS
    width = line_width(placed[seen], 0.008 if many else 0.02, 1.0 if many else 2.0, 16.0)
    lines = [(a, b) for a, b in skeleton if seen[a] and seen[b]]
    if not many:  # all outlines come before all colours, so that the outline of one line does not cut another line
        for a, b in lines:
            line(canvas, placed[a], placed[b], OUTLINE, width + 2)
    for a, b in lines:
        line(canvas, placed[a], placed[b], TRUTH if is_truth else _line_colour(sides[a], sides[b]), width)
    for index in np.flatnonzero(seen):
        dot(canvas, placed[index], OUTLINE, width + 1)
        dot(canvas, placed[index], TRUTH if is_truth else _OF_SIDE[sides[index]], width)


def _line_colour(a: int | None, b: int | None) -> Colour:
    """The colour of a line between points on these sides; a line from the middle to a side has that of the side."""
    sides = {a, b} - {None}
    return _OF_SIDE[sides.pop()] if len(sides) == 1 else MIDDLE

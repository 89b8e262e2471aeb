"""WFLW's 98 face landmarks drawn on pictures: contours by side, and a dot for every point."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcformer.data.face.landmarks import CONTOURS, FLIP_PAIRS, NUM_LANDMARKS
from tcformer.draw.grid import check_picture
from tcformer.draw.strokes import (
    CASING,
    LEFT,
    MIDDLE,
    RIGHT,
    TRUTH,
    Colour,
    averaged,
    dot,
    fine_canvas,
    line,
    line_width,
    mask_hull,
    on_canvas,
)

_COLOUR_OF: dict[int, Colour] = {
    **{right: RIGHT for right, _ in FLIP_PAIRS},
    **{left: LEFT for _, left in FLIP_PAIRS},
}


def landmarks(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
    threshold: float = 0.0,
) -> NDArray[np.uint8]:
    """Draw 98 face landmarks, predicted or annotated, of one or more faces.

    As in `keypoints` the person's left is green, the right orange, and what lies in the middle blue. With
    `truth` the annotated points lie under the others in white.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (98, 3) or (F, 98, 3): x and y in pixels of the image (0 is the centre of the first pixel) and a
            confidence.
        truth: the same of the annotation, where a point counts as labelled if its third value is above 0.
        scale: whole factor by which the picture is larger than the image.
        threshold: points with a confidence not above it, and the lines to them, are left out.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: a shape is wrong or a coordinate is not finite.
    """
    check_picture(image)
    canvas = fine_canvas(image, scale)
    if truth is not None:
        for face in _faces(truth, "truth"):
            _draw_face(canvas, face, 0.0, scale, plain=True)
    for face in _faces(points, "points"):
        _draw_face(canvas, face, threshold, scale, plain=False)
    return averaged(canvas)


def face_mask(
    points: NDArray[np.floating], image_size: tuple[int, int], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """The hull of the landmarks: jaw, brows and what lies between.

    Args:
        points: (98, 3) or (F, 98, 3): x, y in pixels, confidence.
        image_size: height and width of the mask in pixels.
        threshold: points whose third value is not above it are left out.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(image_size, np.uint8)
    for face in _faces(points, "points"):
        mask_hull(mask, face[face[:, 2] > threshold], 0.0)
    return mask.astype(bool)


def _faces(points: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    """Check points and give them as (F, 98, 3) float64."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-2:] != (NUM_LANDMARKS, 3) or array.ndim > 3:
        raise ValueError(f"{name} has shape {array.shape}; expected (98, 3) or (faces, 98, 3)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds coordinates or confidences that are not finite")
    return array.reshape(-1, NUM_LANDMARKS, 3)


def _draw_face(
    canvas: NDArray[np.uint8], face: NDArray[np.float64], threshold: float, scale: int, *, plain: bool
) -> None:
    """Draw one face's (98, 3) points, given in pixels before enlarging, into the canvas."""
    seen = face[:, 2] > threshold
    placed = on_canvas(face, scale)
    width = line_width(placed[seen], 0.006, 1.0, 8.0)
    for a, b in _segments():
        if seen[a] and seen[b]:
            line(canvas, placed[a], placed[b], TRUTH if plain else _colour(a, b), width)
    for index in np.flatnonzero(seen):
        # Dots close to one another, as around the eyes, must not hide what they mark.
        dot(canvas, placed[index], CASING, 1.3 * width)
        dot(canvas, placed[index], TRUTH if plain else _colour(int(index)), width)


def _segments() -> Iterator[tuple[int, int]]:
    """The lines of the contours as pairs of points."""
    for first, last, closed in CONTOURS:
        yield from pairwise([*range(first, last + 1), *([first] if closed else [])])


def _colour(*points: int) -> Colour:
    """The colour of the points' side: blue where none of them has one."""
    sides = [_COLOUR_OF[point] for point in points if point in _COLOUR_OF]
    return sides[0] if sides else MIDDLE

"""WFLW's 98 face landmarks drawn on pictures: contours coloured by side, and a dot for every landmark."""

import numpy as np
from numpy.typing import NDArray

from tcformer.data.face.landmarks import CONTOURS, FLIP_PAIRS, NUM_LANDMARKS
from tcformer.draw.canvas import (
    LEFT,
    MIDDLE,
    OUTLINE,
    RIGHT,
    TRUTH,
    Colour,
    checked_points,
    contour_lines,
    dot,
    draw_all,
    line,
    line_width,
    mask_hull,
    to_canvas,
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

    As in `keypoints`, the person's left side is green, the right side orange and the middle blue. Annotated landmarks
    in `truth` are drawn in white below the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (98, 3) or (F, 98, 3): x and y in pixels of the image (0 is the centre of the first pixel) and a
            confidence.
        truth: the annotated landmarks in the same form; those whose third value is above 0 are labelled.
        scale: integer factor by which the picture is larger than the image.
        threshold: landmarks whose confidence is not above it, and the lines to them, are not drawn.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    return draw_all(image, points, truth, NUM_LANDMARKS, _draw_face, scale=scale, threshold=threshold)


def face_mask(
    points: NDArray[np.floating], image_size: tuple[int, int], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """The convex hull of the landmarks: jaw, eyebrows and everything between them.

    Args:
        points: (98, 3) or (F, 98, 3): x and y in pixels, and a confidence.
        image_size: height and width of the mask, pixels.
        threshold: landmarks whose third value is not above it are left out.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    mask = np.zeros(image_size, np.uint8)
    for face in checked_points(points, NUM_LANDMARKS, "points"):
        mask_hull(mask, face[face[:, 2] > threshold], 0.0)
    return mask.astype(bool)


def _draw_face(
    canvas: NDArray[np.uint8], points: NDArray[np.float64], threshold: float, scale: int, *, is_truth: bool
) -> None:
    """Draw the landmarks (98, 3) of one face, given in pixels of the image, on the canvas."""
    seen = points[:, 2] > threshold
    placed = to_canvas(points, scale)
    width = line_width(placed[seen], 0.006, 1.0, 8.0)
    for a, b in contour_lines(CONTOURS):
        if seen[a] and seen[b]:
            line(canvas, placed[a], placed[b], TRUTH if is_truth else _colour(a, b), width)
    for index in np.flatnonzero(seen):
        # The dots are small: around the eyes, where they are close together, they must not hide what they mark.
        dot(canvas, placed[index], OUTLINE, 1.3 * width)
        dot(canvas, placed[index], TRUTH if is_truth else _colour(int(index)), width)


def _colour(*points: int) -> Colour:
    """The colour of the side on which the landmarks lie."""
    sides = [_COLOUR_OF[point] for point in points if point in _COLOUR_OF]
    return sides[0] if sides else MIDDLE

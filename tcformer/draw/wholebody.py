"""COCO-WholeBody's 133 keypoints drawn on pictures: limbs by side, each finger in its colour, thin face contours."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.data.keypoints.points import IBUG68
from tcformer.data.wholebody.keypoints import NAMES, NUM_KEYPOINTS, PARTS, SKELETON
from tcformer.draw.canvas import (
    LEFT,
    MIDDLE,
    OUTLINE,
    RIGHT,
    TRUTH,
    Colour,
    checked_points,
    dot,
    draw_all,
    extent,
    line,
    line_width,
    mask_hull,
    mask_line,
    to_canvas,
)
from tcformer.draw.text import write_text

_FACE: Colour = (255, 244, 214)
_FINGERS: tuple[Colour, ...] = ((255, 176, 32), (255, 92, 178), (96, 150, 255), (240, 74, 60), (72, 200, 80))

_NOSE = 0
_HEAD = range(5)  # nose, eyes and ears
_SHOULDERS, _HIPS = [5, 6], [11, 12]
_KNEES_AND_ANKLES = range(13, 17)

# Width of the limbs in a mask, in lengths of the torso.
_LIMB_WIDTH = {"body": 0.17, "foot": 0.12, "lefthand": 0.05, "righthand": 0.05}
_LEG_WIDTH = 0.23


def keypoints(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
    threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """Draw 133 whole-body keypoints, predicted or annotated, of one or more people.

    The person's left side is green, the right side orange and the lines between the sides blue; each finger has its own
    colour, and the contours of the face are pale. The line widths follow the person's size in the picture. Annotated
    keypoints in `truth` are drawn in white below the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (133, 3) or (P, 133, 3): x and y in pixels of the image (0 is the centre of the first pixel) and a
            confidence or visibility.
        truth: the annotated keypoints in the same form; those whose third value is above 0 are labelled.
        scale: integer factor by which the picture is larger than the image.
        threshold: keypoints whose confidence is not above it, and the lines to them, are not drawn.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    return draw_all(image, points, truth, NUM_KEYPOINTS, _draw_person, scale=scale, threshold=threshold)


def side_legend(width: int, *, truth: bool = False, text_size: int = 12) -> NDArray[np.uint8]:
    """The legend of the colours of `keypoints` and `landmarks`.

    Args:
        width: of the legend, pixels.
        truth: whether it has an entry for annotated points.
        text_size: font size, pixels.

    Returns:
        (2 * text_size, width, 3) uint8 RGB.
    """
    legend = np.full((2 * text_size, width, 3), 255, np.uint8)
    entries = [("left", LEFT), ("right", RIGHT)] + ([("truth", TRUTH)] if truth else [])
    middle, thickness = text_size, text_size // 4
    for number, (name, colour) in enumerate(entries):
        start = (text_size // 2 + number * width // len(entries), middle)
        end = (start[0] + text_size, middle)
        cv2.line(legend, start, end, OUTLINE, thickness + 2, cv2.LINE_AA)
        cv2.line(legend, start, end, colour, thickness, cv2.LINE_AA)
        write_text(legend, name, (end[0] + text_size // 2, middle + text_size // 3), size=text_size)
    return legend


def person_mask(
    points: NDArray[np.floating], image_size: tuple[int, int], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """An approximate silhouette from keypoints, for images without a segmentation.

    Limbs are lines whose width is proportional to the length of the torso; torso, head and hands are convex hulls.

    Args:
        points: (133, 3) or (P, 133, 3): x and y in pixels, and a confidence or visibility.
        image_size: height and width of the mask, pixels.
        threshold: keypoints whose third value is not above it are left out.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    mask = np.zeros(image_size, np.uint8)
    for person in checked_points(points, NUM_KEYPOINTS, "points"):
        seen = person[:, 2] > threshold
        if not seen.any():
            continue
        if seen[_SHOULDERS + _HIPS].all():
            torso = float(np.linalg.norm(person[_SHOULDERS, :2].mean(0) - person[_HIPS, :2].mean(0)))
        else:
            torso = 0.0
        # The torso may be hidden, or look short from above: then the extent of the whole person counts.
        torso = max(torso, 0.4 * extent(person[seen]))
        for first, second in SKELETON:
            if seen[first] and seen[second] and min(first, second) not in _HEAD:
                end = max(first, second)
                width = _LEG_WIDTH if end in _KNEES_AND_ANKLES else _LIMB_WIDTH[_PART_OF[end]]
                mask_line(mask, person[first], person[second], width * torso)
        if seen[[_NOSE, *_SHOULDERS]].all():
            mask_line(mask, person[_NOSE], person[_SHOULDERS].mean(0), 0.2 * torso)
        for hull, margin in (
            (_SHOULDERS + _HIPS, 0.1),
            ([*_HEAD, *_points_of("face")], 0.1),
            (_points_of("lefthand"), 0.04),
            (_points_of("righthand"), 0.04),
        ):
            mask_hull(mask, person[[i for i in hull if seen[i]]], margin * torso)
    return mask.astype(bool)


def _points_of(part: str) -> range:
    """The keypoints of a part."""
    return range(PARTS[part].start, PARTS[part].stop)


def _draw_person(
    canvas: NDArray[np.uint8], points: NDArray[np.float64], threshold: float, scale: int, *, is_truth: bool
) -> None:
    """Draw the keypoints (133, 3) of one person, given in pixels of the image, on the canvas."""
    seen = points[:, 2] > threshold
    placed = to_canvas(points, scale)
    body = line_width(placed[seen], 0.016, 3.0, 16.0)
    widths = {
        "body": body,
        "head": 0.6 * body,
        "foot": 0.7 * body,
        "face": line_width(placed[PARTS["face"]][seen[PARTS["face"]]], 0.018, 1.6, body),
    }
    for hand in ("lefthand", "righthand"):
        widths[hand] = line_width(placed[PARTS[hand]][seen[PARTS[hand]]], 0.035, 1.4, body)
    lines = [drawn for drawn in _lines() if seen[drawn[0]] and seen[drawn[1]]]
    # All outlines come before all colours, so that the outline of one line does not cut another line.
    for a, b, part, _ in lines:
        if part != "face":
            line(canvas, placed[a], placed[b], OUTLINE, widths[part] + (1 if part.endswith("hand") else 2))
    for a, b, part, colour in lines:
        line(canvas, placed[a], placed[b], TRUTH if is_truth else colour, widths[part])
    for index in np.flatnonzero(seen):
        part = _PART_OF[index]
        if part == "face":
            continue
        radius = widths[part] * _dot_radius(int(index))
        dot(canvas, placed[index], OUTLINE, radius + (0.5 if part.endswith("hand") else 1))
        dot(canvas, placed[index], TRUTH if is_truth else _point_colour(int(index)), radius)


def _lines() -> Iterator[tuple[int, int, str, Colour]]:
    """All lines as first keypoint, second keypoint, part and colour; the face first, so that hands are over it."""
    start = PARTS["face"].start
    for a, b in IBUG68.skeleton:  # the contours of the face, which SKELETON does not have
        yield start + a, start + b, "face", _FACE
    for a, b in SKELETON:
        yield a, b, "head" if min(a, b) in _HEAD else _PART_OF[max(a, b)], _line_colour(a, b)


def _dot_radius(index: int) -> float:
    """Radius of a keypoint's dot in widths of its part's lines; small in the head, so that the face stays visible."""
    if index in _HEAD:
        return 0.55
    return 0.95 if index < PARTS["body"].stop else 0.6


def _line_colour(a: int, b: int) -> Colour:
    """The colour of the line between two keypoints: that of the outer one, or blue between left and right."""
    outer = max(a, b)
    sides = {NAMES[i].split("_")[0] for i in (a, b)}
    if outer < PARTS["foot"].stop and len(sides & {"left", "right"}) != 1:
        return MIDDLE
    return _point_colour(outer)


def _point_colour(index: int) -> Colour:
    """The colour of a keypoint: that of its finger or of its side."""
    for hand in ("lefthand", "righthand"):
        offset = index - PARTS[hand].start
        if 1 <= offset < 21:
            return _FINGERS[(offset - 1) // 4]
    if NAMES[index].startswith("left_"):
        return LEFT
    return RIGHT if NAMES[index].startswith("right_") else MIDDLE


_PART_OF = [next(name for name, part in PARTS.items() if part.start <= i < part.stop) for i in range(NUM_KEYPOINTS)]

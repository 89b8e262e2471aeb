"""Whole-body keypoints drawn on pictures: limbs by side, fingers by colour, thin face contours."""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.data.wholebody.keypoints import NAMES, NUM_KEYPOINTS, PARTS, SKELETON
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
    extent,
    fine_canvas,
    line,
    line_width,
    mask_hull,
    mask_line,
    on_canvas,
)
from tcformer.draw.text import write

_FACE: Colour = (255, 244, 214)
_FINGERS: tuple[Colour, ...] = ((255, 176, 32), (255, 92, 178), (96, 150, 255), (240, 74, 60), (72, 200, 80))

# The face's contours as runs of points, counted from the first face point (300-W / iBUG 68); closed ones
# return to their start. SKELETON has no bones in the face.
_FACE_RUNS: tuple[tuple[int, int, bool], ...] = (
    (0, 16, False),  # jaw
    (17, 21, False),  # brow at the image's left
    (22, 26, False),
    (27, 30, False),  # bridge of the nose
    (31, 35, False),  # nostrils
    (36, 41, True),  # eye at the image's left
    (42, 47, True),
    (48, 59, True),  # outer lip
    (60, 67, True),  # inner lip
)

# Nose, eyes and ears of the body's points.
_HEAD = range(5)

_KNEES_AND_ANKLES = range(13, 17)

# Width of the limbs in a mask, in lengths of the torso; legs are wider.
_THICKNESS = {"body": 0.17, "foot": 0.12, "lefthand": 0.05, "righthand": 0.05}


def keypoints(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
    threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """Draw 133 whole-body keypoints, predicted or annotated, of one or more persons.

    The person's left is green, the right orange, what joins them blue, each finger has its colour and the
    face's contours are pale. Line widths follow the size of the person in the result. With `truth` the
    annotated points lie under the others in white.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (133, 3) or (P, 133, 3): x and y in pixels of the image (0 is the centre of the first pixel)
            and a confidence or visibility.
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
        for person in _people(truth, "truth"):
            _draw_person(canvas, person, 0.0, scale, plain=True)
    for person in _people(points, "points"):
        _draw_person(canvas, person, threshold, scale, plain=False)
    return averaged(canvas)


def side_legend(width: int, *, truth: bool = False, text_size: int = 12) -> NDArray[np.uint8]:
    """The key to the colours of `keypoints`, with or without the white of annotated points.

    Returns:
        (2 * text_size, width, 3) uint8 RGB.
    """
    legend = np.full((2 * text_size, width, 3), 255, np.uint8)
    entries = [("left", LEFT), ("right", RIGHT)] + ([("truth", TRUTH)] if truth else [])
    middle, stroke = text_size, text_size // 4
    for number, (name, colour) in enumerate(entries):
        start = (text_size // 2 + number * width // len(entries), middle)
        end = (start[0] + text_size, middle)
        cv2.line(legend, start, end, CASING, stroke + 2, cv2.LINE_AA)
        cv2.line(legend, start, end, colour, stroke, cv2.LINE_AA)
        write(legend, name, (end[0] + text_size // 2, middle + text_size // 3), size=text_size)
    return legend


def person_mask(
    points: NDArray[np.floating], image_size: tuple[int, int], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """A rough silhouette from keypoints, for images that come without a segmentation.

    Limbs are lines as thick as limbs usually are for a torso of that length; torso, head, hands and feet are
    filled hulls.

    Args:
        points: (133, 3) or (P, 133, 3): x, y in pixels, confidence or visibility.
        image_size: height and width of the mask in pixels.
        threshold: points whose third value is not above it are left out.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(image_size, np.uint8)
    for person in _people(points, "points"):
        seen = person[:, 2] > threshold
        if not seen.any():
            continue
        if seen[[5, 6, 11, 12]].all():
            torso = float(np.linalg.norm(person[[5, 6], :2].mean(0) - person[[11, 12], :2].mean(0)))
        else:
            torso = 0.0
        # Seen from the side or from above the torso is short; the whole person's extent bounds it from below.
        torso = max(torso, 0.4 * extent(person[seen]))
        for first, second in SKELETON:
            if seen[first] and seen[second] and min(first, second) not in _HEAD:
                end = max(first, second)
                thickness = 0.23 if end in _KNEES_AND_ANKLES else _THICKNESS[_PART_OF[end]]
                mask_line(mask, person[first], person[second], thickness * torso)
        if seen[[0, 5, 6]].all():
            mask_line(mask, person[0], person[[5, 6]].mean(0), 0.2 * torso)
        head = [*_HEAD, *range(PARTS["face"].start, PARTS["face"].stop)]
        for hull, margin in (
            ([5, 6, 11, 12], 0.1),
            (head, 0.1),
            (range(91, 112), 0.04),
            (range(112, 133), 0.04),
        ):
            mask_hull(mask, person[[i for i in hull if seen[i]]], margin * torso)
    return mask.astype(bool)


def _people(points: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    """Check points and give them as (P, 133, 3) float64."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-2:] != (NUM_KEYPOINTS, 3) or array.ndim > 3:
        raise ValueError(f"{name} has shape {array.shape}; expected (133, 3) or (persons, 133, 3)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds coordinates or confidences that are not finite")
    return array.reshape(-1, NUM_KEYPOINTS, 3)


def _draw_person(
    canvas: NDArray[np.uint8], person: NDArray[np.float64], threshold: float, scale: int, *, plain: bool
) -> None:
    """Draw one person's (133, 3) points, given in pixels before enlarging, into the canvas."""
    seen = person[:, 2] > threshold
    placed = on_canvas(person, scale)
    body = line_width(placed[seen], 0.016, 3.0, 16.0)
    widths = {
        "body": body,
        "head": 0.6 * body,
        "foot": 0.7 * body,
        "face": line_width(placed[PARTS["face"]][seen[PARTS["face"]]], 0.018, 1.6, body),
    }
    for hand in ("lefthand", "righthand"):
        widths[hand] = line_width(placed[PARTS[hand]][seen[PARTS[hand]]], 0.035, 1.4, body)
    bones = [bone for bone in _bones() if seen[bone[0]] and seen[bone[1]]]
    # All casings before all colours, so that no line is cut by its neighbour's casing.
    for a, b, part, _ in bones:
        if part != "face":
            line(canvas, placed[a], placed[b], CASING, widths[part] + (1 if part.endswith("hand") else 2))
    for a, b, part, colour in bones:
        line(canvas, placed[a], placed[b], TRUTH if plain else colour, widths[part])
    for index in np.flatnonzero(seen):
        part = _PART_OF[index]
        if part == "face":
            continue
        radius = widths[part] * _dot_share(int(index))
        dot(canvas, placed[index], CASING, radius + (0.5 if part.endswith("hand") else 1))
        dot(canvas, placed[index], TRUTH if plain else _point_colour(int(index)), radius)


def _bones() -> Iterator[tuple[int, int, str, Colour]]:
    """Every line as first point, second point, part and colour: face first, so that hands lie above it."""
    start = PARTS["face"].start
    for first, last, closed in _FACE_RUNS:
        run = [*range(first, last + 1), *([first] if closed else [])]
        for a, b in pairwise(run):
            yield start + a, start + b, "face", _FACE
    for a, b in SKELETON:
        yield a, b, "head" if min(a, b) in _HEAD else _PART_OF[max(a, b)], _bone_colour(a, b)


def _dot_share(index: int) -> float:
    """Radius of a point's dot, in widths of its part's lines; small in the head, to leave the face free."""
    if index in _HEAD:
        return 0.55
    return 0.95 if index < PARTS["body"].stop else 0.6


def _bone_colour(a: int, b: int) -> Colour:
    """A bone has its farther point's colour; bones from one side to the other are blue."""
    farther = max(a, b)
    sides = {NAMES[i].split("_")[0] for i in (a, b)}
    if farther < PARTS["foot"].stop and len(sides & {"left", "right"}) != 1:
        return MIDDLE
    return _point_colour(farther)


def _point_colour(index: int) -> Colour:
    """Fingers by finger, other points by side."""
    for hand in ("lefthand", "righthand"):
        offset = index - PARTS[hand].start
        if 1 <= offset < 21:
            return _FINGERS[(offset - 1) // 4]
    if NAMES[index].startswith("left_"):
        return LEFT
    return RIGHT if NAMES[index].startswith("right_") else MIDDLE


_PART_OF = [next(name for name, part in PARTS.items() if part.start <= i < part.stop) for i in range(NUM_KEYPOINTS)]

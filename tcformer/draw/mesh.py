"""Bodies drawn over crops or whole pictures: the shaded surface, or the joints coloured by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.body.camera import FOCAL_OVER_SIDE
from tcformer.body.joints import NUM_OPENPOSE, SPIN_NAMES
from tcformer.draw.canvas import (
    LEFT,
    MIDDLE,
    OUTLINE,
    RIGHT,
    TRUTH,
    Colour,
    dot,
    finished,
    line,
    line_width,
    new_canvas,
    to_canvas,
)

# Colour and opacity of the surface.
_SURFACE = np.array([168.0, 190.0, 232.0])
_OPACITY = 0.8
# Direction to the light, above and to the left of the camera, in camera axes (x right, y down, z away).
_LIGHT = np.array([-0.4, -0.55, -0.73])
_AMBIENT = 0.35

# Pairs of SPIN's last 24 joints that are joined by a line: limbs and head, and from the neck to the pelvis.
_BONES = (
    *((0, 1), (1, 2), (2, 14), (3, 14), (3, 4), (4, 5)),
    *((6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11), (12, 13), (12, 14)),
)


@dataclass(frozen=True)
class CroppedBody:
    """A posed body and the crop from which it was predicted.

    Attributes:
        vertices: (V, 3) metres, camera axes: x right, y down, z away.
        camera: (3,) scale and shift of a `MeshPrediction`.
        centre: x, y of the crop's centre in pixels of the picture (0 is the centre of the first pixel).
        side: of the crop, in pixels of the picture.
    """

    vertices: NDArray[np.floating]
    camera: NDArray[np.floating]
    centre: tuple[float, float]
    side: float


def body(
    image: NDArray[np.uint8],
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    camera: NDArray[np.floating],
    *,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """Draw the surface of a posed body over the crop from which it was predicted.

    Args:
        image: (S, S, 3) uint8 RGB, the crop.
        vertices: (V, 3) metres, camera axes: x right, y down, z away.
        faces: (F, 3) triangles.
        camera: (3,) scale and shift of a `MeshPrediction`.
        scale: integer factor by which the picture is larger than the image.

    Returns:
        (S * scale, S * scale, 3) uint8 RGB.

    Raises:
        ValueError: if the image is no picture or not square, or a vertex or the camera is not finite.
    """
    _check_square(image.shape[:2])
    crop = CroppedBody(np.asarray(vertices), np.asarray(camera), *_whole(image.shape[0]))
    return bodies(image, [crop], faces, scale=scale)


def bodies(
    image: NDArray[np.uint8], people: Sequence[CroppedBody], faces: NDArray[np.integer], *, scale: int = 1
) -> NDArray[np.uint8]:
    """Draw the surfaces of people over the picture from which their crops were taken.

    Each body keeps the camera of its crop, so it lies in the picture where it lies in the crop. A person who is smaller
    in the picture is taken to be further away, and is drawn below the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        people: the predicted bodies.
        faces: (F, 3) triangles.
        scale: integer factor by which the picture is larger than the image.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if the image is no picture, or a vertex or a camera is not finite.
    """
    canvas = new_canvas(image, scale)
    behind = canvas.copy()  # the picture shines through a body, but other bodies do not
    for person in sorted(people, key=lambda person: float(person.camera[0]) * person.side):
        _draw_surface(canvas, behind, person, faces, canvas.shape[0] // image.shape[0], scale)
    return finished(canvas)


def _draw_surface(
    canvas: NDArray[np.uint8],
    behind: NDArray[np.uint8],
    person: CroppedBody,
    faces: NDArray[np.integer],
    factor: int,
    scale: int,
) -> None:
    """Draw one body on a canvas that is `factor` times as large as the image; `behind` shines through."""
    seen, face_of_pixel, weights = _rasterize(person, faces, canvas.shape[:2], factor)
    covered = face_of_pixel >= 0
    corners = np.asarray(faces)[face_of_pixel[covered]]
    shares = np.concatenate([weights[covered], 1 - weights[covered].sum(1, keepdims=True)], 1)
    normals = (_normals(seen, faces)[corners] * shares[:, :, None]).sum(1)
    # A closed surface shows its outside, whatever the order of its triangles' corners.
    normals *= np.where(normals[:, 2:] > 0, -1, 1)
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
    shaded = np.minimum(_SURFACE * 1.1 * light[:, None], 255)
    canvas[covered] = np.rint(_OPACITY * shaded + (1 - _OPACITY) * behind[covered]).astype(np.uint8)
    outline, _ = cv2.findContours(covered.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outline, -1, OUTLINE, max(1, round(0.35 * scale)), cv2.LINE_AA)


def body_mask(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    camera: NDArray[np.floating],
    image_size: tuple[int, int],
) -> NDArray[np.bool_]:
    """The silhouette of a posed body in the crop.

    Args:
        vertices: (V, 3) as for `body`.
        faces: (F, 3) triangles.
        camera: (3,) as for `body`.
        image_size: height and width of the crop, pixels.

    Returns:
        (S, S) bool.

    Raises:
        ValueError: if the crop is not square, or a vertex or the camera is not finite.
    """
    _check_square(image_size)
    crop = CroppedBody(np.asarray(vertices), np.asarray(camera), *_whole(image_size[0]))
    return _rasterize(crop, faces, image_size, 1)[1] >= 0


def body_joints(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """Draw SPIN's joints of a body, predicted or annotated.

    The person's left side is green, the right side orange and the middle blue. Annotated joints in `truth` are drawn in
    white below the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (49, 3) x and y in half crops from the crop's centre, and a confidence, above 0 for known joints.
        truth: the annotated joints in the same form.
        scale: integer factor by which the picture is larger than the image.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if a shape is wrong or a value is not finite.
    """
    canvas = new_canvas(image, scale)
    for name, joints in (("truth", truth), ("points", points)):
        if joints is None:
            continue
        if joints.shape != (len(SPIN_NAMES), 3) or not np.isfinite(joints).all():
            raise ValueError(f"{name} has shape {joints.shape}; expected (49, 3) and finite numbers")
        placed = joints[NUM_OPENPOSE:].astype(np.float64)
        placed[:, :2] = (placed[:, :2] + 1) * image.shape[1] / 2
        _draw_joints(canvas, to_canvas(placed, scale), is_truth=name == "truth")
    return finished(canvas)


def _draw_joints(canvas: NDArray[np.uint8], joints: NDArray[np.float64], *, is_truth: bool) -> None:
    """Draw SPIN's last 24 joints (24, 3), given in pixels of the canvas."""
    seen = joints[:, 2] > 0
    width = line_width(joints[seen], 0.016, 3.0, 16.0)
    bones = [bone for bone in _BONES if seen[bone[0]] and seen[bone[1]]]
    for a, b in bones:
        line(canvas, joints[a], joints[b], OUTLINE, width + 2)
    for a, b in bones:
        line(canvas, joints[a], joints[b], TRUTH if is_truth else _colour(a, b), width)
    for index in sorted({joint for bone in bones for joint in bone}):
        dot(canvas, joints[index], TRUTH if is_truth else _colour(index, index), 0.9 * width)


def _colour(a: int, b: int) -> Colour:
    """The colour of a line between two of SPIN's last 24 joints."""
    sides = {SPIN_NAMES[NUM_OPENPOSE + joint].split(" ")[0] for joint in (a, b)}
    if "left" in sides:
        return LEFT
    return RIGHT if "right" in sides else MIDDLE


def _check_square(size: tuple[int, ...]) -> None:
    if size[0] != size[1]:
        raise ValueError(f"the crop has {size[0]} x {size[1]} pixels; expected a square crop")


def _whole(side: int) -> tuple[tuple[float, float], float]:
    """Centre and side of a crop that is a whole picture."""
    return (side / 2, side / 2), side


def _rasterize(
    person: CroppedBody, faces: NDArray[np.integer], size: tuple[int, ...], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Rasterize a body into a canvas of `size` (height, width) that is `factor` times as large as the image.

    Returns:
        The vertices (V, 3) in camera space, and the face of each pixel and the weights of its corners as in
        `tcformer.rasterizer.rasterize`.
    """
    from tcformer.rasterizer import rasterize

    vertices, camera = person.vertices, person.camera
    if not np.isfinite(vertices).all() or not np.isfinite(camera).all():
        raise ValueError("the vertices or the camera hold values that are not finite; expected finite numbers")
    height, width = size
    if camera[0] <= 0:  # the body is behind the camera
        nothing = np.full((height, width), -1, np.int32)
        return np.zeros_like(vertices, np.float32), nothing, np.zeros((height, width, 2), np.float32)
    translation = [camera[1], camera[2], 2 * FOCAL_OVER_SIDE / camera[0]]
    seen = (vertices + translation).astype(np.float32)
    # The rasterizer counts from the corner of the first pixel, `CroppedBody` from its centre.
    x, y = ((at + 0.5) * factor for at in person.centre)
    focal = FOCAL_OVER_SIDE * (person.side * factor)
    _, face_of_pixel, weights = rasterize(seen, np.asarray(faces, np.int32), focal, x, y, height, width)
    return seen, face_of_pixel, weights


def _normals(points: NDArray[np.float32], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    """Unit normals (V, 3) of vertices (V, 3)."""
    from tcformer.rasterizer import vertex_normals

    return vertex_normals(points, np.asarray(faces, np.int32))

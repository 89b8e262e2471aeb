"""Body meshes drawn over the crops they were predicted from: the shaded surface, and joints by side."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.body.camera import FOCAL_OVER_SIDE
from tcformer.body.joints import NUM_OPENPOSE, SPIN_NAMES
from tcformer.draw.grid import check_picture
from tcformer.draw.strokes import (
    CASING,
    LEFT,
    MIDDLE,
    RIGHT,
    Colour,
    averaged,
    dot,
    fine_canvas,
    line,
    line_width,
    on_canvas,
)

# The surface, and how much of it covers the picture.
_SKIN = np.array([168.0, 190.0, 232.0])
_OPACITY = 0.8
# Light from above the camera's left shoulder, camera axes (y down, z away).
_LIGHT = np.array([-0.4, -0.55, -0.73])
_AMBIENT = 0.35

# Bones between the first 14 of SPIN's last 24 joints, and from the thorax down to the pelvis.
_BONES = (
    *((0, 1), (1, 2), (2, 14), (3, 14), (3, 4), (4, 5)),
    *((6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11), (12, 13), (12, 14)),
)


def body(
    image: NDArray[np.uint8],
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    camera: NDArray[np.floating],
    *,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """Draw a posed body over the crop it was predicted from.

    Args:
        image: (S, S, 3) uint8 RGB, the crop.
        vertices: (V, 3) metres, camera axes: x right, y down, z away.
        faces: (F, 3) triangles.
        camera: (3,) scale and shift of a `MeshPrediction`.
        scale: whole factor by which the picture is larger than the image.

    Returns:
        (S * scale, S * scale, 3) uint8 RGB.

    Raises:
        ValueError: the image is no picture or not square, or a vertex is not finite.
    """
    check_picture(image)
    canvas = fine_canvas(image, scale)
    side = canvas.shape[0]
    seen, face_of_pixel, weights = _rasterized(vertices, faces, camera, image.shape[:2], side)
    covered = face_of_pixel >= 0
    corners = np.asarray(faces)[face_of_pixel[covered]]
    shares = np.concatenate([weights[covered], 1 - weights[covered].sum(1, keepdims=True)], 1)
    normals = (_normals(seen, faces)[corners] * shares[:, :, None]).sum(1)
    # A closed surface shows its outside, whichever way its triangles are numbered.
    normals *= np.where(normals[:, 2:] > 0, -1, 1)
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
    shaded = np.minimum(_SKIN * 1.1 * light[:, None], 255)
    canvas[covered] = np.rint(_OPACITY * shaded + (1 - _OPACITY) * canvas[covered]).astype(np.uint8)
    outline, _ = cv2.findContours(covered.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outline, -1, CASING, max(1, round(0.35 * scale)), cv2.LINE_AA)
    return averaged(canvas)


def body_mask(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    camera: NDArray[np.floating],
    image_size: tuple[int, int],
) -> NDArray[np.bool_]:
    """The silhouette of a posed body in the crop; arguments as for `body`.

    Returns:
        (S, S) bool.
    """
    return _rasterized(vertices, faces, camera, image_size, image_size[0])[1] >= 0


def body_joints(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    truth: NDArray[np.floating] | None = None,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """Draw SPIN's joints of a body, predicted or annotated: left green, right orange, the middle blue.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (49, 3) x, y in half crops from the crop's centre, and a confidence above 0 where known.
        truth: the same of the annotation, drawn under the others in white.
        scale: whole factor by which the picture is larger than the image.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: a shape is wrong or a coordinate is not finite.
    """
    check_picture(image)
    canvas = fine_canvas(image, scale)
    for name, joints in (("truth", truth), ("points", points)):
        if joints is None:
            continue
        if joints.shape != (len(SPIN_NAMES), 3) or not np.isfinite(joints).all():
            raise ValueError(f"{name}: expected (49, 3) finite numbers, found shape {joints.shape}")
        placed = joints[NUM_OPENPOSE:].astype(np.float64)
        placed[:, :2] = (placed[:, :2] + 1) * image.shape[1] / 2
        _draw_joints(canvas, on_canvas(placed, scale), plain=name == "truth")
    return averaged(canvas)


def _draw_joints(canvas: NDArray[np.uint8], joints: NDArray[np.float64], *, plain: bool) -> None:
    seen = joints[:, 2] > 0
    width = line_width(joints[seen], 0.016, 3.0, 16.0)
    bones = [bone for bone in _BONES if seen[bone[0]] and seen[bone[1]]]
    for a, b in bones:
        line(canvas, joints[a], joints[b], CASING, width + 2)
    for a, b in bones:
        line(canvas, joints[a], joints[b], (255, 255, 255) if plain else _colour(a, b), width)
    for index in sorted({joint for bone in bones for joint in bone}):
        dot(canvas, joints[index], (255, 255, 255) if plain else _colour(index, index), 0.9 * width)


def _colour(a: int, b: int) -> Colour:
    sides = {SPIN_NAMES[NUM_OPENPOSE + joint].split(" ")[0] for joint in (a, b)}
    if "left" in sides:
        return LEFT
    return RIGHT if "right" in sides else MIDDLE


def _rasterized(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    camera: NDArray[np.floating],
    image_size: tuple[int, int],
    side: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Vertices before the camera, the face of each pixel of a canvas (side, side), and barycentric weights."""
    from tcformer.rasterizer import rasterize

    if image_size[0] != image_size[1]:
        raise ValueError(f"the crop has {image_size[0]} x {image_size[1]} pixels; expected a square")
    if not np.isfinite(vertices).all() or not np.isfinite(camera).all():
        raise ValueError("the body holds vertices or a camera that are not finite")
    if camera[0] <= 0:  # behind the camera there is nothing to see
        nothing = np.full((side, side), -1, np.int32)
        return np.zeros_like(vertices, np.float32), nothing, np.zeros((side, side, 2), np.float32)
    away = [camera[1], camera[2], 2 * FOCAL_OVER_SIDE / camera[0]]
    seen = (np.asarray(vertices) + away).astype(np.float32)
    # The crop's centre is the pixel S / 2, whose middle lies half a pixel further.
    centre = (image_size[0] / 2 + 0.5) * side / image_size[0]
    _, face_of_pixel, weights = rasterize(
        seen, np.asarray(faces, np.int32), FOCAL_OVER_SIDE * side, centre, centre, side, side
    )
    return seen, face_of_pixel, weights


def _normals(points: NDArray[np.float32], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    from tcformer.rasterizer import vertex_normals

    return vertex_normals(points, np.asarray(faces, np.int32))

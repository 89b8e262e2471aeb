"""Rotations, the camera and its coordinate systems.

World space: metres, z up, the ground is z = 0, x to the camera's right, y away from the camera. A person with yaw 0
faces the camera (looks along -y), so the person's left is at +x. Camera space: x right, y down, z forward. Image
space: continuous pixels; (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.synthetic.exact import cosine, dot, product, sine

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

LEFT: Array = np.array([1.0, 0.0, 0.0])
FORWARD: Array = np.array([0.0, -1.0, 0.0])
UP: Array = np.array([0.0, 0.0, 1.0])

_WORLD_TO_CAMERA_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def cross(a: Array, b: Array) -> Array:
    """Cross product of two vectors (3,); for a single pair many times faster than `numpy.cross`."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def unit(vector: ArrayLike) -> Array:
    """The vector (3,) scaled to length 1."""
    vector = np.asarray(vector, float)
    return vector / max(float(np.sqrt(dot(vector, vector))), 1e-12)


# Not scipy's Rotation nor tcformer.body.rotations: their last bits depend on the CPU, and so would generated files.
def rotation(axis: Array | tuple[float, float, float], degrees: float) -> Array:
    """Matrix (3, 3) that rotates by `degrees` about `axis` (right-hand rule); the identity for a zero axis."""
    angle = math.radians(degrees)
    return _axis_rotation(axis, sine(angle), cosine(angle))


def _axis_rotation(axis: Array | tuple[float, float, float], sine: float, cosine: float) -> Array:
    """`rotation` by the angle with this sine and cosine."""
    x, y, z = (float(component) for component in axis)
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        return np.eye(3)
    x, y, z = x / length, y / length, z / length
    rest = 1.0 - cosine
    return np.array(
        [
            [cosine + x * x * rest, x * y * rest - z * sine, x * z * rest + y * sine],
            [y * x * rest + z * sine, cosine + y * y * rest, y * z * rest - x * sine],
            [z * x * rest - y * sine, z * y * rest + x * sine, cosine + z * z * rest],
        ]
    )


def rotation_towards(direction: Array, target: Array, degrees: float) -> Array:
    """Matrix (3, 3) that rotates `direction` by `degrees` towards `target`."""
    return rotation(cross(direction, target), degrees)


def rotation_between(direction: Array, target: Array) -> Array:
    """Matrix (3, 3) of the smallest rotation that makes `direction` parallel to `target`."""
    direction, target = unit(direction), unit(target)
    axis = cross(direction, target)
    return _axis_rotation(axis, math.sqrt(dot(axis, axis)), dot(direction, target))


def direction_from_angles(azimuth: float, elevation: float) -> Array:
    """The unit vector (3,) with this elevation above the ground, turned by `azimuth` from -y towards +x; radians."""
    flat = cosine(elevation)
    return np.array([sine(azimuth) * flat, -cosine(azimuth) * flat, sine(elevation)])


@numba.njit(cache=True)
def transform_points(points: Float32, matrix: Array) -> Float32:
    """Points (V, 3) transformed by an affine matrix (3, 4); dtype as that of the points."""
    moved = np.empty_like(points)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for row in range(3):
            moved[i, row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z + matrix[row, 3]
    return moved


@numba.njit(cache=True)
def bounds(points: Float32) -> Array:
    """Smallest and largest coordinates (2, 3) of points (V, 3)."""
    result = np.empty((2, 3))
    for axis in range(3):
        low = high = points[0, axis]
        for i in range(points.shape[0]):
            low = min(low, points[i, axis])
            high = max(high, points[i, axis])
        result[0, axis], result[1, axis] = low, high
    return result


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: camera space = rotation @ world + translation; pixels = focal * (x, y) / z + centre."""

    rotation: Array
    """(3, 3)"""
    translation: Array
    """(3,) metres."""
    focal: float
    """Focal length, pixels."""
    centre: tuple[float, float]
    """Principal point (x, y), pixels."""
    size: tuple[int, int]
    """Height and width of the image, pixels."""

    def to_camera(self, world: NDArray) -> NDArray:
        """World points (..., 3) in camera space."""
        turned = np.einsum("...j,ij->...i", world, self.rotation.astype(world.dtype))
        return turned + self.translation.astype(world.dtype)

    def project(self, world: NDArray) -> Array:
        """Image coordinates (..., 2) of world points (..., 3), pixels."""
        points = self.to_camera(np.asarray(world, float))
        return self.focal * points[..., :2] / points[..., 2:] + np.array(self.centre)

    def zoomed(self, focal: float, seen: Array, at: Array) -> Camera:
        """The same view with another focal length and principal point.

        Args:
            focal: the new focal length, pixels.
            seen: (2,) a point as this camera projects it; this camera has focal length 1 and centre (0, 0).
            at: (2,) the pixel at which the new camera shows that point.
        """
        shift = at - focal * seen
        return replace(self, focal=focal, centre=(float(shift[0]), float(shift[1])))

    @property
    def position(self) -> Array:
        """The camera's place in the world, (3,)."""
        return -product(self.rotation.T, self.translation)

    @property
    def pixel_to_ray(self) -> Array:
        """Matrix (3, 3) from (x, y, 1) in pixels to the world direction whose component along the view is 1 m."""
        x, y = self.centre
        inverse = np.array([[1 / self.focal, 0, -x / self.focal], [0, 1 / self.focal, -y / self.focal], [0, 0, 1]])
        return product(self.rotation.T, inverse)


def look_at(target: Array, distance: float, pitch_deg: float, size: tuple[int, int]) -> Camera:
    """A camera `distance` metres in front of `target` (towards -y) that looks down by `pitch_deg`.

    It has focal length 1 pixel and centre (0, 0): `Camera.zoomed` follows.
    """
    turn = product(rotation((1.0, 0.0, 0.0), pitch_deg), _WORLD_TO_CAMERA_AXES)
    return Camera(
        rotation=turn,
        translation=np.array([0.0, 0.0, distance]) - product(turn, target),
        focal=1.0,
        centre=(0.0, 0.0),
        size=size,
    )

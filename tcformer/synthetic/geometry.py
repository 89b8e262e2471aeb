"""Rotations and the camera.

World: metres, z up, the ground is z = 0, x to the camera's right, y away from the camera. Somebody with yaw 0
faces the camera (looks along -y), so the person's left is at +x. Camera space: x right, y down, z forward.
Picture: continuous pixels, (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEFT: Array = np.array([1.0, 0.0, 0.0])
FORWARD: Array = np.array([0.0, -1.0, 0.0])
UP: Array = np.array([0.0, 0.0, 1.0])

_WORLD_TO_CAMERA_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def cross(a: Array, b: Array) -> Array:
    """Cross product of two vectors (3,); many times faster than numpy's for one pair."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def unit(vector: ArrayLike) -> Array:
    """The vector (3,) scaled to length 1."""
    vector = np.asarray(vector, float)
    return vector / max(float(np.sqrt(vector @ vector)), 1e-12)


def rotation(axis: Array | tuple[float, float, float], degrees: float) -> Array:
    """Matrix (3, 3) that turns by `degrees` about `axis` (right hand rule); identity for a zero axis."""
    x, y, z = (float(component) for component in axis)
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        return np.eye(3)
    x, y, z = x / length, y / length, z / length
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    rest = 1.0 - cosine
    return np.array(
        [
            [cosine + x * x * rest, x * y * rest - z * sine, x * z * rest + y * sine],
            [y * x * rest + z * sine, cosine + y * y * rest, y * z * rest - x * sine],
            [z * x * rest - y * sine, z * y * rest + x * sine, cosine + z * z * rest],
        ]
    )


def rotation_towards(direction: Array, target: Array, degrees: float) -> Array:
    """Turns `direction` by `degrees` towards `target`."""
    return rotation(cross(direction, target), degrees)


def rotation_between(direction: Array, target: Array) -> Array:
    """The shortest rotation that makes `direction` parallel to `target`."""
    direction, target = unit(direction), unit(target)
    axis = cross(direction, target)
    return rotation(axis, math.degrees(math.atan2(math.sqrt(axis @ axis), direction @ target)))


@dataclass(frozen=True)
class Camera:
    """A pinhole: camera space = rotation @ world + translation; pixels = focal * (x, y) / z + centre."""

    rotation: Array
    translation: Array
    focal: float
    centre: tuple[float, float]
    size: tuple[int, int]
    """Height and width of the picture, pixels."""

    def to_camera(self, world: NDArray) -> NDArray:
        """World points (..., 3) in camera space."""
        # einsum, not BLAS: the bytes must not depend on the number of threads
        turned = np.einsum("...j,ij->...i", world, self.rotation.astype(world.dtype))
        return turned + self.translation.astype(world.dtype)

    def project(self, world: NDArray) -> Array:
        """Picture coordinates (..., 2) of world points (..., 3), pixels."""
        points = self.to_camera(np.asarray(world, float))
        return self.focal * points[..., :2] / points[..., 2:] + np.array(self.centre)

    def framed(self, focal: float, seen: Array, at: Array) -> Camera:
        """The same view enlarged to another focal length; what this camera, with focal length 1 and centre
        (0, 0), sees at `seen` comes to pixel `at`."""
        shift = at - focal * seen
        return replace(self, focal=focal, centre=(float(shift[0]), float(shift[1])))

    @property
    def position(self) -> Array:
        """Where the camera is in the world, (3,)."""
        return -self.rotation.T @ self.translation

    @property
    def pixel_to_ray(self) -> Array:
        """Matrix (3, 3): (x, y, 1) in pixels to the world direction that moves 1 m forward."""
        x, y = self.centre
        inverse = np.array([[1 / self.focal, 0, -x / self.focal], [0, 1 / self.focal, -y / self.focal], [0, 0, 1]])
        return self.rotation.T @ inverse


def look_at(target: Array, distance: float, pitch_deg: float, size: tuple[int, int]) -> Camera:
    """A camera `distance` metres in front of `target` (in the direction of -y), looking down by `pitch_deg`;
    focal length 1 pixel, centre (0, 0), to be framed by `framed`."""
    turn = rotation((1.0, 0.0, 0.0), pitch_deg) @ _WORLD_TO_CAMERA_AXES
    return Camera(turn, np.array([0.0, 0.0, distance]) - turn @ target, 1.0, (0.0, 0.0), size)

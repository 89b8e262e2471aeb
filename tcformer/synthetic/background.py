"""Backgrounds: a floor and a wall drawn in perspective, or a photograph."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError
from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.geometry import Array, Camera, Float32

# These files are inside scikit-image's wheel. Each is in the public domain or CC0 and shows no person (see NOTICE).
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")

_TILE = 128  # side of a surface's tile, pixels


@lru_cache(maxsize=16)
def _photograph(name: str) -> Float32:
    """A file of scikit-image (h, w, 3), sRGB, 0 to 1."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError(
            "the package scikit-image is not installed: expected it, because backgrounds with photo_fraction above 0 "
            "use its photographs; install it or set photo_fraction to 0"
        )
    path = Path(package.origin).parent / "data" / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(
            f"{path}: cannot be read: expected a photograph of scikit-image; install scikit-image again or set "
            "photo_fraction to 0"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32) / 255


def _noise(size: int, rng: np.random.Generator) -> Float32:
    """Smooth noise (size, size), about -1 to 1, whose copies side by side show no seam."""
    noise = np.zeros((size, size), np.float32)
    for cells in (4, 8, 16, 32):
        coarse = rng.normal(0, 1 / np.sqrt(cells), (cells, cells)).astype(np.float32)
        step = size // cells
        larger = (size + 4 * step, size + 4 * step)
        wrapped = cv2.copyMakeBorder(coarse, 2, 2, 2, 2, cv2.BORDER_WRAP)
        fine = cv2.resize(wrapped, larger, interpolation=cv2.INTER_CUBIC)
        noise += fine[2 * step : -2 * step, 2 * step : -2 * step]
    return noise


def _surface_tile(rng: np.random.Generator, clutter: float, photo: bool) -> Float32:
    """A tile (_TILE, _TILE, 3) of a floor or a wall, sRGB, 0 to 1."""
    size = _TILE
    colour = random_colour(rng, 0.6)
    if photo:
        name = TEXTURES[rng.integers(len(TEXTURES))]
        grey = cv2.resize(_photograph(name), (size, size), interpolation=cv2.INTER_AREA)
        contrast = np.float32(0.3 + 0.7 * clutter)
        return np.clip(colour * (1 + contrast * (grey / grey.mean() - 1)), 0, 1)
    tile = np.broadcast_to(colour, (size, size, 3)).copy()
    tile *= 1 + (0.15 + 0.35 * clutter) * _noise(size, rng)[..., None]
    kind = rng.choice(4)
    if kind and rng.uniform() < clutter:
        ramp = np.arange(size) // (size // int(rng.choice([4, 8, 16])))
        odd = ramp[None] % 2 if kind == 1 else ramp[:, None] % 2 if kind == 2 else (ramp[None] + ramp[:, None]) % 2
        other = random_colour(rng, 0.6)
        tile += (odd[..., None] * 0.7 * (other - colour)).astype(np.float32)
    return np.clip(tile, 0, 1)


@numba.njit(cache=True)
def _cast_rays(
    eye: Array, pixel_to_ray: Array, wall_distance: float, scales: Array, tile: int, height: int, width: int
) -> tuple[NDArray[np.bool_], Float32, Float32, Float32]:
    """Where each pixel's ray meets the ground or the wall behind it.

    Args:
        eye: (3,) the camera's position, metres.
        pixel_to_ray: (3, 3) of the camera.
        wall_distance: y of the wall, metres.
        scales: (2,) tile pixels per metre on the ground and on the wall.
        tile: side of a tile, pixels.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        Four arrays (height, width): whether the ray meets the ground; the position on the tile, u and v in pixels of
        the tile; and the distance along the view, metres.
    """
    ground = np.zeros((height, width), np.bool_)
    u = np.empty((height, width), np.float32)
    v = np.empty((height, width), np.float32)
    reach = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            x = pixel_to_ray[0, 0] * (column + 0.5) + pixel_to_ray[0, 1] * (row + 0.5) + pixel_to_ray[0, 2]
            y = pixel_to_ray[1, 0] * (column + 0.5) + pixel_to_ray[1, 1] * (row + 0.5) + pixel_to_ray[1, 2]
            z = pixel_to_ray[2, 0] * (column + 0.5) + pixel_to_ray[2, 1] * (row + 0.5) + pixel_to_ray[2, 2]
            far = (wall_distance - eye[1]) / max(y, 1e-3)
            below = -eye[2] / z if z < -1e-6 else np.inf
            on_ground = below < far
            at = below if on_ground else far
            along = eye[1] + at * y if on_ground else eye[2] + at * z
            scale = scales[0] if on_ground else scales[1]
            ground[row, column] = on_ground
            u[row, column] = ((eye[0] + at * x) * scale) % tile
            v[row, column] = (along * scale) % tile
            reach[row, column] = at
    return ground, u, v, reach


def _room(camera: Camera, rng: np.random.Generator, clutter: float, photo: bool) -> Float32:
    """The ground and a wall behind it in the camera's perspective, (height, width, 3)."""
    wall_distance = rng.uniform(1.0, 4.0)
    scales = _TILE / rng.uniform(0.8, 2.5, 2)
    ground, u, v, reach = _cast_rays(camera.position, camera.pixel_to_ray, wall_distance, scales, _TILE, *camera.size)
    floor, wall = _surface_tile(rng, clutter, photo), _surface_tile(rng, clutter, photo and rng.uniform() < 0.5)
    options = {"interpolation": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_WRAP}
    image = np.where(ground[..., None], cv2.remap(floor, u, v, **options), cv2.remap(wall, u, v, **options))
    shade = np.where(ground, np.float32(1), np.float32(rng.uniform(0.75, 1.1)))
    return image * (shade * (1 - np.float32(0.05) * np.clip(reach - 3, 0, 6)))[..., None]


def _draw_objects(image: Float32, count: int, rng: np.random.Generator) -> None:
    """Draw flat rectangles and ellipses into the image."""
    height, width = image.shape[:2]
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = (
            int(rng.integers(max(width // 20, 2), width // 3)),
            int(rng.integers(max(height // 20, 2), height // 2)),
        )
        colour = [float(channel) for channel in random_colour(rng)]
        if rng.uniform() < 0.7:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.ellipse(image, (x, y), (max(w // 2, 1), max(h // 3, 1)), rng.uniform(0, 180), 0, 360, colour, -1)


def background(camera: Camera, clutter: float, photo_fraction: float, rng: np.random.Generator) -> Float32:
    """A random background (height, width, 3), sRGB, 0 to 1; `clutter` and `photo_fraction` are those of the options."""
    height, width = camera.size
    photo = bool(rng.uniform() < photo_fraction)
    if photo and rng.uniform() < 0.5:
        source = _photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
        scale = max(height / source.shape[0], width / source.shape[1])
        # Cropping before scaling is cheaper than scaling the whole photograph.
        zoom = rng.uniform(1.0, 1.8)
        h, w = int(height / scale / zoom), int(width / scale / zoom)
        y, x = int(rng.integers(source.shape[0] - h + 1)), int(rng.integers(source.shape[1] - w + 1))
        image = cv2.resize(source[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
        if rng.uniform() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
        image = np.float32(0.5) + (image - np.float32(0.5)) * np.float32(0.35 + 0.65 * clutter)
    else:
        image = _room(camera, rng, clutter, photo)
        _draw_objects(image, int(rng.integers(0, 1 + round(12 * clutter))), rng)
    if rng.uniform() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0) * (1.5 if clutter > 0.5 else 2.5))
    brightness = rng.uniform(0.35, 0.7) / max(float(image.mean()), 0.05)
    return np.clip(image * np.float32(np.clip(brightness, 0.6, 2.0)), 0, 1)

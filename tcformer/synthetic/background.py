"""Backgrounds: a floor and a wall drawn in perspective, or a photograph."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numba
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

from tcformer.errors import UserError
from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.exact import resize
from tcformer.synthetic.geometry import Array, Camera, Float32

# These files are inside scikit-image's wheel. Each is in the public domain or CC0 and shows no person (see NOTICE).
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")

_TILE = 128  # side of a surface's tile, pixels


@lru_cache(maxsize=16)
def _photograph(name: str) -> NDArray[np.uint8]:
    """A file of scikit-image (h, w, 3), sRGB."""
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
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _noise(size: int, rng: np.random.Generator) -> Float32:
    """Smooth noise (size, size), about -1 to 1, whose copies side by side show no seam."""
    noise = np.zeros((size, size), np.float32)
    for cells in (4, 8, 16, 32):
        coarse = rng.normal(0, 1 / np.sqrt(cells), (cells, cells)).astype(np.float32)
        step = size // cells
        fine = resize(np.pad(coarse, 2, "wrap"), (size + 4 * step, size + 4 * step), Resampling.BICUBIC)
        noise += fine[2 * step : -2 * step, 2 * step : -2 * step]
    return noise


def _surface_tile(rng: np.random.Generator, clutter: float, photo: bool) -> Float32:
    """A tile (_TILE, _TILE, 3) of a floor or a wall, sRGB, 0 to 1."""
    size = _TILE
    colour = random_colour(rng, 0.6)
    if photo:
        name = TEXTURES[rng.integers(len(TEXTURES))]
        grey = resize(_photograph(name), (size, size), Resampling.BOX)
        relative = grey.astype(np.float32) / np.float32(grey.mean())
        return np.clip(colour * (1 + np.float32(0.3 + 0.7 * clutter) * (relative - 1)), 0, 1)
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
def _draw_room(
    eye: Array,
    pixel_to_ray: Array,
    wall_distance: float,
    scales: Array,
    floor: Float32,
    wall: Float32,
    wall_light: float,
    height: int,
    width: int,
) -> Float32:
    """The ground and a wall behind it as a camera sees them, (height, width, 3), darker in the distance.

    Args:
        eye: (3,) the camera's position, metres.
        pixel_to_ray: (3, 3) of the camera.
        wall_distance: y of the wall, metres.
        scales: (2,) tile pixels per metre on the ground and on the wall.
        floor: (_TILE, _TILE, 3) the ground's tile, repeated in both directions.
        wall: (_TILE, _TILE, 3) the wall's.
        wall_light: light on the wall relative to that on the ground.
        height: of the image, pixels.
        width: of the image, pixels.
    """
    image = np.empty((height, width, 3), np.float32)
    for row in range(height):
        for column in range(width):
            x = pixel_to_ray[0, 0] * (column + 0.5) + pixel_to_ray[0, 1] * (row + 0.5) + pixel_to_ray[0, 2]
            y = pixel_to_ray[1, 0] * (column + 0.5) + pixel_to_ray[1, 1] * (row + 0.5) + pixel_to_ray[1, 2]
            z = pixel_to_ray[2, 0] * (column + 0.5) + pixel_to_ray[2, 1] * (row + 0.5) + pixel_to_ray[2, 2]
            far = (wall_distance - eye[1]) / max(y, 1e-3)
            below = -eye[2] / z if z < -1e-6 else np.inf
            on_ground = below < far
            reach = below if on_ground else far
            along = eye[1] + reach * y if on_ground else eye[2] + reach * z
            scale = scales[0] if on_ground else scales[1]
            tile = floor if on_ground else wall
            u, v = (eye[0] + reach * x) * scale, along * scale
            left, top = np.floor(u), np.floor(v)
            to_right, to_bottom = u - left, v - top
            i0, j0 = int(top) % _TILE, int(left) % _TILE
            i1, j1 = (i0 + 1) % _TILE, (j0 + 1) % _TILE
            light = (1.0 if on_ground else wall_light) * (1 - 0.05 * min(max(reach - 3, 0.0), 6.0))
            for channel in range(3):
                upper = tile[i0, j0, channel] + to_right * (tile[i0, j1, channel] - tile[i0, j0, channel])
                lower = tile[i1, j0, channel] + to_right * (tile[i1, j1, channel] - tile[i1, j0, channel])
                image[row, column, channel] = light * (upper + to_bottom * (lower - upper))
    return image


def _room(camera: Camera, rng: np.random.Generator, clutter: float, photo: bool) -> Float32:
    """The ground and a wall behind it in the camera's perspective, (height, width, 3)."""
    wall_distance = rng.uniform(1.0, 4.0)
    scales = _TILE / rng.uniform(0.8, 2.5, 2)
    floor, wall = _surface_tile(rng, clutter, photo), _surface_tile(rng, clutter, photo and rng.uniform() < 0.5)
    wall_light = rng.uniform(0.75, 1.1)
    return _draw_room(
        camera.position, camera.pixel_to_ray, wall_distance, scales, floor, wall, wall_light, *camera.size
    )


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
    image: Float32
    photo = bool(rng.uniform() < photo_fraction)
    if photo and rng.uniform() < 0.5:
        source = _photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
        scale = max(height / source.shape[0], width / source.shape[1])
        # Cropping before scaling is cheaper than scaling the whole photograph.
        zoom = rng.uniform(1.0, 1.8)
        h, w = int(height / scale / zoom), int(width / scale / zoom)
        y, x = int(rng.integers(source.shape[0] - h + 1)), int(rng.integers(source.shape[1] - w + 1))
        part = resize(source[y : y + h, x : x + w], (height, width), Resampling.BILINEAR)
        if rng.uniform() < 0.5:
            part = part[:, ::-1]
        colours = part.astype(np.float32) / np.float32(255)
        image = np.float32(0.5) + (colours - np.float32(0.5)) * np.float32(0.35 + 0.65 * clutter)
    else:
        image = _room(camera, rng, clutter, photo)
        _draw_objects(image, int(rng.integers(0, 1 + round(12 * clutter))), rng)
    pixels = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    if rng.uniform() < 0.6:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.0) * (1.5 if clutter > 0.5 else 2.5))
    brightness = rng.uniform(0.35, 0.7) / max(float(pixels.mean()) / 255, 0.05)
    return np.clip(pixels * np.float32(np.clip(brightness, 0.6, 2.0) / 255), 0, 1)

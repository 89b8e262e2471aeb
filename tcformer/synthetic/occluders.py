"""Things that hide part of a face: glasses, a mask, an object held in front of it.

They are meshes, drawn and lit with the person, so that a turned nose hides half of the glasses and not the
other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tcformer.rasterizer import vertex_normals
from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.body import BODY, BodyModel
from tcformer.synthetic.geometry import Array, cross, rotation, unit
from tcformer.synthetic.person import Person

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Mesh = tuple[Float32, Int32]

Occluder = Literal["glasses", "mask", "object"]
OCCLUDERS: tuple[Occluder, ...] = get_args(Occluder)

_FIRST_INNER_POINT = 33  # of the 98; those before are the jaw
_LENS_CORNERS = 14
_TEMPLE = 0.11  # length of the sides of glasses, metres


@dataclass(frozen=True)
class Solid:
    """A mesh of one colour (`render.Thing`): vertices (V, 3) in the world, metres; faces (F, 3)."""

    vertices: Float32
    faces: Int32
    colour: Float32

    def mesh(self) -> Mesh:
        """Vertices and faces."""
        return self.vertices, self.faces


def make_occluder(
    body: BodyModel, person: Person, points: Array, eye: Array, kind: Occluder, rng: np.random.Generator
) -> Solid:
    """Something in front of a person's face.

    points (98, 3): WFLW's landmarks in the world; eye (3,): where the camera is.
    """
    if kind == "glasses":
        return Solid(*_glasses(points, rng), random_colour(rng, 0.5) * np.float32(0.3))
    if kind == "mask":
        return Solid(*_mask(body, person, rng), random_colour(rng, 0.6))
    return Solid(*_held_object(points, eye, rng), random_colour(rng))


def _glasses(points: Array, rng: np.random.Generator) -> Mesh:
    """Sunglasses: two lenses, a bridge and the sides that run to the ears."""
    right_eye, left_eye = points[60:68].mean(0), points[68:76].mean(0)
    across = unit(left_eye - right_eye)
    down = points[85] - (right_eye + left_eye) / 2
    down = unit(down - across * (down @ across))
    forward = cross(across, down) * -1.0
    if forward @ (points[54] - points[57]) < 0:  # the tip of the nose lies in front of its base
        forward = -forward
    apart = float(np.sqrt(((left_eye - right_eye) ** 2).sum()))
    half_width, half_height = apart * rng.uniform(0.36, 0.44), apart * rng.uniform(0.26, 0.4)
    thickness = 0.004
    parts: list[Mesh] = []
    # In front of the lashes and of the bridge of the nose.
    front = 0.019
    for middle, outward in ((right_eye, -across), (left_eye, across)):
        # Lenses follow the face: their outer halves lie farther back.
        side = unit(outward - 0.25 * forward)
        centre = middle + forward * front + outward * 0.004 + down * 0.003
        parts.append(_disc(centre, side * half_width, down * half_height))
        hinge = centre + side * half_width - down * half_height * 0.4
        parts.append(_slab(hinge, hinge - forward * _TEMPLE + outward * 0.012, down * thickness))
    parts.append(_slab(right_eye + forward * (front + 0.004), left_eye + forward * (front + 0.004), down * thickness))
    return _joined(parts)


def _mask(body: BodyModel, person: Person, rng: np.random.Generator) -> Mesh:
    """A cloth over nose, mouth and chin: the skin there, moved outwards."""
    mark = body.face98.on(body.mean)
    top = mark[52, 2] + (mark[53, 2] - mark[52, 2]) * rng.uniform(-0.3, 1.0)
    rest = body.mean
    inside = (rest[:, 2] < top) & (rest[:, 2] > mark[16, 2] - 0.006) & (rest[:, 1] < mark[2, 1] - 0.004)
    # The upper edge falls towards the ears.
    inside &= rest[:, 2] < top - 0.35 * np.maximum(np.abs(rest[:, 0]) - 0.02, 0)
    inside &= body.part_weights["head"] > 0.5
    covered = (body.face_group == BODY) & inside[body.faces].all(1)
    normals = vertex_normals(person.skin, body.faces)
    used, faces = np.unique(body.faces[covered], return_inverse=True)
    return person.skin[used] + np.float32(0.006) * normals[used], faces.reshape(-1, 3).astype(np.int32)


def _held_object(points: Array, eye: Array, rng: np.random.Generator) -> Mesh:
    """A box or a ball between the camera and part of the face."""
    behind = points[rng.integers(_FIRST_INNER_POINT, len(points))]
    towards = unit(eye - behind)
    centre = behind + towards * rng.uniform(0.05, 0.12)
    turn = rotation(rng.normal(0, 1, 3), rng.uniform(0, 90))
    if rng.uniform() < 0.5:
        return _box(centre, turn * (np.array([rng.uniform(0.06, 0.12), rng.uniform(0.03, 0.06), 0.02]) / 2))
    return _ball(centre, turn * (rng.uniform(0.05, 0.1, 3) / 2))


def _disc(centre: Array, x: Array, y: Array) -> Mesh:
    """An ellipse with half axes x and y."""
    angle = np.arange(_LENS_CORNERS) * (2 * np.pi / _LENS_CORNERS)
    rim = centre + np.cos(angle)[:, None] * x + np.sin(angle)[:, None] * y
    ends = np.arange(_LENS_CORNERS)
    faces = np.column_stack([np.zeros(_LENS_CORNERS), 1 + ends, 1 + (ends + 1) % _LENS_CORNERS])
    return np.concatenate([centre[None], rim]).astype(np.float32), faces.astype(np.int32)


def _slab(start: Array, end: Array, half: Array) -> Mesh:
    """A flat bar from start to end, 2 `half` high."""
    corners = np.array([start - half, start + half, end + half, end - half], np.float32)
    return corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def _box(centre: Array, half_axes: Array) -> Mesh:
    """A box; half_axes (3, 3): one a column. Sides do not share corners, so that the edges stay sharp."""
    parts: list[Mesh] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            middle = centre + sign * half_axes[:, axis]
            u, v = half_axes[:, (axis + 1) % 3], half_axes[:, (axis + 2) % 3]
            parts.append(_slab(middle - u, middle + u, v))
    return _joined(parts)


def _ball(centre: Array, half_axes: Array) -> Mesh:
    """An ellipsoid; half_axes (3, 3): one a column."""
    rings, corners = 7, 12
    latitude = np.linspace(0, np.pi, rings)
    longitude = np.arange(corners) * (2 * np.pi / corners)
    sphere = np.stack(
        [
            np.outer(np.sin(latitude), np.cos(longitude)),
            np.outer(np.sin(latitude), np.sin(longitude)),
            np.outer(np.cos(latitude), np.ones(corners)),
        ],
        -1,
    ).reshape(-1, 3)
    faces = []
    for ring in range(rings - 1):
        for k in range(corners):
            a, b = ring * corners + k, ring * corners + (k + 1) % corners
            faces += [(a, b, b + corners), (a, b + corners, a + corners)]
    vertices = centre + np.einsum("nj,ij->ni", sphere, half_axes)
    return vertices.astype(np.float32), np.array(faces, np.int32)


def _joined(parts: list[Mesh]) -> Mesh:
    first = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    faces = [faces + start for (_, faces), start in zip(parts, first, strict=False)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces).astype(np.int32)

"""Objects that hide part of a face: glasses, a mask, something held in front of it.

They are meshes, rendered together with the person, so that they hide the face from every side as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tcformer.rasterizer import vertex_normals
from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.exact import cosine, dot, sine
from tcformer.synthetic.geometry import Array, Float32, Int32, cross, direction_from_angles, rotation, unit
from tcformer.synthetic.person import Person
from tcformer.synthetic.template_body import BODY, TemplateBody

#: Vertices (V, 3), metres, and faces (F, 3).
Mesh = tuple[Float32, Int32]

Occluder = Literal["glasses", "mask", "object"]
OCCLUDERS: tuple[Occluder, ...] = get_args(Occluder)

_FIRST_INNER_POINT = 33  # of the 98 landmarks; the earlier ones are the jaw's
_LENS_CORNERS = 14
_TEMPLE_LENGTH = 0.11  # of the sides of glasses, metres


@dataclass(frozen=True)
class Solid:
    """An object of one colour, see `tcformer.synthetic.render.ColouredMesh`."""

    vertices: Float32
    """(V, 3) world, metres."""
    faces: Int32
    """(F, 3)"""
    colour: Float32
    """(3,) sRGB, 0 to 1."""

    def mesh(self) -> Mesh:
        """Vertices and faces."""
        return self.vertices, self.faces


def make_occluder(
    body: TemplateBody, person: Person, points: Array, eye: Array, kind: Occluder, rng: np.random.Generator
) -> Solid:
    """An object in front of a person's face.

    Args:
        body: the template body.
        person: the person whose face is hidden.
        points: (98, 3) WFLW's landmarks of the face, world.
        eye: (3,) the camera's position, world.
        kind: the kind of object.
        rng: the source of randomness.
    """
    if kind == "glasses":
        return Solid(*_glasses(points, rng), random_colour(rng, 0.5) * np.float32(0.3))
    if kind == "mask":
        return Solid(*_mask(body, person, rng), random_colour(rng, 0.6))
    return Solid(*_held_object(points, eye, rng), random_colour(rng))


def _glasses(points: Array, rng: np.random.Generator) -> Mesh:
    """Sunglasses: two lenses, a bridge and sides that run to the ears."""
    right_eye, left_eye = points[60:68].mean(0), points[68:76].mean(0)
    across = unit(left_eye - right_eye)
    down = points[85] - (right_eye + left_eye) / 2
    down = unit(down - across * dot(down, across))
    forward = cross(across, down) * -1.0
    if dot(forward, points[54] - points[57]) < 0:  # the tip of the nose lies in front of its base
        forward = -forward
    apart = float(np.sqrt(((left_eye - right_eye) ** 2).sum()))
    half_width, half_height = apart * rng.uniform(0.36, 0.44), apart * rng.uniform(0.26, 0.4)
    thickness = 0.004
    parts: list[Mesh] = []
    front = 0.019  # in front of the lashes and the bridge of the nose
    for middle, outward in ((right_eye, -across), (left_eye, across)):
        # Lenses follow the face: their outer halves are farther back.
        side = unit(outward - 0.25 * forward)
        centre = middle + forward * front + outward * 0.004 + down * 0.003
        parts.append(_disc(centre, side * half_width, down * half_height))
        hinge = centre + side * half_width - down * half_height * 0.4
        parts.append(_slab(hinge, hinge - forward * _TEMPLE_LENGTH + outward * 0.012, down * thickness))
    parts.append(_slab(right_eye + forward * (front + 0.004), left_eye + forward * (front + 0.004), down * thickness))
    return _joined(parts)


def _mask(body: TemplateBody, person: Person, rng: np.random.Generator) -> Mesh:
    """A face mask: the skin of nose, mouth and chin, moved outwards."""
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
    """An ellipse with semi-axes x and y."""
    angles = np.arange(_LENS_CORNERS) * (2 * np.pi / _LENS_CORNERS)
    rim = np.array([centre + cosine(angle) * x + sine(angle) * y for angle in angles])
    ends = np.arange(_LENS_CORNERS)
    faces = np.column_stack([np.zeros(_LENS_CORNERS), 1 + ends, 1 + (ends + 1) % _LENS_CORNERS])
    return np.concatenate([centre[None], rim]).astype(np.float32), faces.astype(np.int32)


def _slab(start: Array, end: Array, half: Array) -> Mesh:
    """A flat rectangle from start to end, `2 * half` high."""
    corners = np.array([start - half, start + half, end + half, end - half], np.float32)
    return corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def _box(centre: Array, half_axes: Array) -> Mesh:
    """A box with a semi-axis in each column of half_axes (3, 3).

    Its sides share no vertices, so that the edges stay sharp.
    """
    parts: list[Mesh] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            middle = centre + sign * half_axes[:, axis]
            u, v = half_axes[:, (axis + 1) % 3], half_axes[:, (axis + 2) % 3]
            parts.append(_slab(middle - u, middle + u, v))
    return _joined(parts)


def _ball(centre: Array, half_axes: Array) -> Mesh:
    """An ellipsoid with a semi-axis in each column of half_axes (3, 3)."""
    rings, corners = 7, 12
    latitudes = np.linspace(-np.pi / 2, np.pi / 2, rings)
    longitudes = np.arange(corners) * (2 * np.pi / corners)
    sphere = np.array([direction_from_angles(around, up) for up in latitudes for around in longitudes])
    faces = []
    for ring in range(rings - 1):
        for k in range(corners):
            a, b = ring * corners + k, ring * corners + (k + 1) % corners
            faces += [(a, b, b + corners), (a, b + corners, a + corners)]
    vertices = centre + np.einsum("nj,ij->ni", sphere, half_axes)
    return vertices.astype(np.float32), np.array(faces, np.int32)


def _joined(parts: list[Mesh]) -> Mesh:
    """One mesh of several."""
    first = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    faces = [faces + start for (_, faces), start in zip(parts, first, strict=False)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces).astype(np.int32)

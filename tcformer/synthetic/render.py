"""Rendering of people and objects, and the visibility of their keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from tcformer.data.wholebody.keypoints import EYE_CORNERS, PARTS
from tcformer.rasterizer import orthographic_depth, rasterize, vertex_normals
from tcformer.synthetic.appearance import drawn_faces, paint
from tcformer.synthetic.exact import product
from tcformer.synthetic.geometry import (
    UP,
    Array,
    Camera,
    Float32,
    Int32,
    bounds,
    cross,
    direction_from_angles,
    rotation,
    transform_points,
    unit,
)
from tcformer.synthetic.person import Person
from tcformer.synthetic.template_body import TemplateBody

#: Values of `Rendering.owner` that are no person.
BACKGROUND, OBJECT = -1, -2

# How far behind the visible surface a keypoint still counts as visible, metres, because joints lie inside the body:
# 17 body points, 6 feet, 68 face, 2 x 21 hands.
_DEPTH_TOLERANCE = np.array(
    [0.03, 0.03, 0.03, 0.05, 0.05, 0.14, 0.14, 0.09, 0.09, 0.06, 0.06, 0.2, 0.2, 0.11, 0.11, 0.09, 0.09]
    + [0.06] * 6 + [0.014] * 68 + [0.035] * 42
)  # fmt: skip

_LARGEST_SHADOW_MAP = 384  # pixels


class ColouredMesh(Protocol):
    """An object in a scene: a mesh of one colour."""

    @property
    def colour(self) -> Float32:
        """(3,) sRGB, 0 to 1."""
        ...

    def mesh(self) -> tuple[Float32, Int32]:
        """Vertices (V, 3), world, metres, and faces (F, 3)."""
        ...


@dataclass(frozen=True)
class Box:
    """A piece of furniture: an upright box on the ground."""

    centre: tuple[float, float]
    """x and y, metres."""
    size: tuple[float, float, float]
    """Along x, y and z before the rotation, metres."""
    yaw_deg: float
    colour: Float32
    """(3,) sRGB, 0 to 1."""

    def mesh(self) -> tuple[Float32, Int32]:
        """24 vertices, four of each side so that the edges stay sharp, and 12 faces."""
        vertices: list[Array] = []
        faces: list[tuple[int, int, int]] = []
        for axis in range(3):
            for sign in (-1.0, 1.0):
                u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
                middle = sign * np.eye(3)[axis]
                start = len(vertices)
                vertices += [middle - u - v, middle + u - v, middle + u + v, middle - u + v]
                faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
        points = np.array(vertices) * (np.array(self.size) / 2) + [0.0, 0.0, self.size[2] / 2]
        points = np.einsum("nj,ij->ni", points, rotation(UP, self.yaw_deg)) + [*self.centre, 0.0]
        return points.astype(np.float32), np.array(faces, np.int32)


@dataclass(frozen=True)
class Light:
    """A distant lamp (the key light) and ambient light."""

    direction: Array
    """(3,) unit vector towards the lamp, world."""
    key: Float32
    """(3,) linear RGB."""
    ambient: Float32
    """(3,) linear RGB."""


@dataclass(frozen=True)
class Rendering:
    """The image of a scene, and what each of its samples shows."""

    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    owner: NDArray[np.int16]
    """(height * scale, width * scale) index of the person, BACKGROUND or OBJECT."""
    depth: Float32
    """(height * scale, width * scale) metres, inf for the background."""
    scale: int
    """Samples per pixel in each direction."""


def sample_light(rng: np.random.Generator) -> Light:
    """Sample nearly white light from above and from the front or the side."""
    azimuth, elevation = math.radians(rng.uniform(-85, 85)), math.radians(rng.uniform(25, 70))
    key = rng.uniform(0.55, 1.1) * (1 + rng.normal(0, 0.05, 3))
    ambient = rng.uniform(0.28, 0.55) * (1 + rng.normal(0, 0.05, 3))
    return Light(direction_from_angles(azimuth, elevation), key.astype(np.float32), ambient.astype(np.float32))


def render(
    body: TemplateBody,
    people: Sequence[Person],
    objects: Sequence[ColouredMesh],
    camera: Camera,
    light: Light,
    background: Float32,
    exposure: float,
    supersampling: int,
    rng: np.random.Generator,
) -> Rendering:
    """Render people and objects in front of a background.

    Args:
        body: the template body.
        people: the people of the scene.
        objects: the objects of the scene.
        camera: the camera.
        light: the light.
        background: (height, width, 3) sRGB, 0 to 1.
        exposure: relative to a well exposed image.
        supersampling: samples per pixel in each direction.
        rng: the source of the camera's noise.
    """
    height, width = camera.size
    h, w = height * supersampling, width * supersampling
    drawn = [drawn_faces(body, person.appearance) for person in people]
    meshes = [(person.dressed, body.faces[faces]) for person, faces in zip(people, drawn, strict=True)]
    meshes += [thing.mesh() for thing in objects]
    first_vertex = np.cumsum([0] + [len(vertices) for vertices, _ in meshes])
    first_face = np.cumsum([0] + [len(faces) for _, faces in meshes])
    world = np.concatenate([vertices for vertices, _ in meshes])
    faces = np.concatenate([faces + start for (_, faces), start in zip(meshes, first_vertex, strict=False)])
    faces = faces.astype(np.int32)
    seen = transform_points(world, np.column_stack([camera.rotation, camera.translation]))
    focal = camera.focal * supersampling
    centre = (camera.centre[0] * supersampling, camera.centre[1] * supersampling)
    depth, face_of_pixel, weights = rasterize(seen, faces, focal, *centre, h, w)

    # The last entry, at index -1, is for pixels without a face.
    owner_of_face = np.full(first_face[-1] + 1, BACKGROUND, np.int16)
    albedo = np.zeros((h, w, 3), np.float32)
    for index, person in enumerate(people):
        paint(body, person.appearance, int(first_face[index]), drawn[index], face_of_pixel, weights, albedo)
        owner_of_face[first_face[index] : first_face[index + 1]] = index
    for index, thing in enumerate(objects, len(people)):
        inside = (face_of_pixel >= first_face[index]) & (face_of_pixel < first_face[index + 1])
        albedo[inside] = thing.colour
        owner_of_face[first_face[index] : first_face[index + 1]] = OBJECT
    owner = owner_of_face[face_of_pixel]

    shadow_map, to_map = _shadow_map(world, faces, light, min(2 * height, _LARGEST_SHADOW_MAP))
    eye = camera.position
    normals = vertex_normals(world, faces)
    lit, coverage = _shade(
        face_of_pixel, weights, albedo, world, normals, faces, shadow_map, to_map.astype(np.float32),
        light.direction.astype(np.float32), light.key, light.ambient, eye.astype(np.float32), supersampling,
    )  # fmt: skip
    shadow = _ground_shadow(eye, camera.pixel_to_ray, shadow_map, to_map, height, width)
    # The edges of shadows on the ground are soft.
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(height / 160, 0.5)).astype(np.float32) / np.float32(255)
    darkest = light.ambient.mean() / (light.ambient.mean() + light.key.mean() * max(light.direction[2], 0.0))

    noise = _noise(rng.uniform(0.5, 3), lit.shape, rng)
    image = _composite(lit, coverage, background, shadow, float(darkest), exposure, noise)
    return Rendering(image, owner, depth, supersampling)


def _shadow_map(world: Float32, faces: Int32, light: Light, size: int) -> tuple[Float32, Array]:
    """The depth (size, size) that the light sees, and the matrix (3, 4) from world to the map.

    The map's coordinates are x and y in pixels and the depth in metres.
    """
    across = unit(cross(light.direction, np.array([0.0, 1.0, 0.2])))
    basis = np.stack([across, cross(light.direction, across), -light.direction])
    matrix = np.column_stack([basis, np.zeros(3)])
    low, high = bounds(transform_points(world, matrix))
    scale = (size - 4) / max(float((high - low)[:2].max()), 1e-3)
    matrix[:, 3] = -low
    matrix[:2] *= scale
    matrix[:2, 3] += 2
    return orthographic_depth(transform_points(world, matrix), faces, size), matrix


@numba.njit(cache=True)
def _shade(
    face_of_pixel: Int32,
    weights: Float32,
    albedo: Float32,
    world: Float32,
    normals: Float32,
    faces: Int32,
    shadow_map: Float32,
    to_map: Float32,
    light: Float32,
    key: Float32,
    ambient: Float32,
    eye: Float32,
    scale: int,
) -> tuple[Float32, Float32]:
    """Light the painted samples (h, w) and average them over pixels (H, W).

    Args:
        face_of_pixel: (h, w) from `rasterize`.
        weights: (h, w, 2) from `rasterize`.
        albedo: (h, w, 3) sRGB, 0 to 1.
        world: (V, 3) vertices.
        normals: (V, 3) of the vertices.
        faces: (F, 3)
        shadow_map: from `_shadow_map`.
        to_map: (3, 4) from `_shadow_map`.
        light: (3,) unit vector towards the lamp.
        key: (3,) linear RGB of the lamp.
        ambient: (3,) linear RGB of the ambient light.
        eye: (3,) position of the camera.
        scale: samples per pixel in each direction.

    Returns:
        Linear colour times coverage (H, W, 3), and coverage (H, W), 0 to 1.
    """
    h, w = face_of_pixel.shape
    lit = np.zeros((h // scale, w // scale, 3), np.float32)
    coverage = np.zeros((h // scale, w // scale), np.float32)
    share = np.float32(1.0 / (scale * scale))
    size = shadow_map.shape[0]
    # A surface nearer than this to the one in the shadow map is lit: 2 cm and the map's resolution.
    step = np.float32(0.02) + np.float32(1.5) / np.sqrt(to_map[0, 0] ** 2 + to_map[0, 1] ** 2 + to_map[0, 2] ** 2)
    for row in range(h):
        for column in range(w):
            k = face_of_pixel[row, column]
            if k < 0:
                continue
            wa, wb = weights[row, column, 0], weights[row, column, 1]
            wc = np.float32(1.0) - wa - wb
            a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
            x = wa * world[a, 0] + wb * world[b, 0] + wc * world[c, 0]
            y = wa * world[a, 1] + wb * world[b, 1] + wc * world[c, 1]
            z = wa * world[a, 2] + wb * world[b, 2] + wc * world[c, 2]
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            length = max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-9))
            vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
            away = np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx / away, vy / away, vz / away
            if nx * vx + ny * vy + nz * vz < 0:  # the inside of a skirt or the mouth
                length = -length
            nx, ny, nz = nx / length, ny / length, nz / length
            u = int(to_map[0, 0] * x + to_map[0, 1] * y + to_map[0, 2] * z + to_map[0, 3])
            v = int(to_map[1, 0] * x + to_map[1, 1] * y + to_map[1, 2] * z + to_map[1, 3])
            deep = to_map[2, 0] * x + to_map[2, 1] * y + to_map[2, 2] * z + to_map[2, 3]
            facing = nx * light[0] + ny * light[1] + nz * light[2]
            allowed = step / max(abs(facing), np.float32(0.25))
            open_ = 0.0
            for i in range(max(v - 1, 0), min(v + 2, size)):
                for j in range(max(u - 1, 0), min(u + 2, size)):
                    if deep - shadow_map[i, j] < allowed:
                        open_ += 1.0 / 9.0
            direct = min(max((facing + 0.15) / 1.15, 0.0), 1.0) * open_
            hx, hy, hz = light[0] + vx, light[1] + vy, light[2] + vz
            half = max(np.sqrt(hx * hx + hy * hy + hz * hz), 1e-9)
            shine = min(max((nx * hx + ny * hy + nz * hz) / half, 0.0), 1.0)
            shine = 0.06 * open_ * shine**24
            sky = 0.75 + 0.25 * nz
            for channel in range(3):
                colour = albedo[row, column, channel] * albedo[row, column, channel]  # nearly linear RGB
                value = colour * (key[channel] * direct + ambient[channel] * sky) + shine * key[channel]
                lit[row // scale, column // scale, channel] += share * value
            coverage[row // scale, column // scale] += share
    return lit, coverage


def _noise(strength: float, shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """Noise with standard deviation `strength`: a sum of four random bytes, which is nearly normal.

    The generator's normal numbers need a logarithm now and then, whose last bits depend on the CPU.
    """
    total = np.frombuffer(rng.bytes(4 * math.prod(shape)), np.uint8).reshape(4, *shape).sum(0, dtype=np.uint16)
    deviation = math.sqrt(4 * (256**2 - 1) / 12)
    return (total.astype(np.float32) - np.float32(4 * 255 / 2)) * np.float32(strength / deviation)


@numba.njit(cache=True)
def _composite(
    lit: Float32,
    coverage: Float32,
    background: Float32,
    shadow: Float32,
    darkest: float,
    exposure: float,
    noise: Float32,
) -> NDArray[np.uint8]:
    """The image: people and objects over the background, exposed.

    Args:
        lit: (H, W, 3) linear colour times coverage.
        coverage: (H, W) share of people and objects in each pixel.
        background: (H, W, 3) sRGB, 0 to 1.
        shadow: (H, W) share of each pixel that is in the shadow.
        darkest: light in a full shadow relative to the light outside.
        exposure: relative to a well exposed image.
        noise: (H, W, 3) added to the pixels, of 0 to 255.

    Returns:
        (H, W, 3) sRGB.
    """
    height, width = coverage.shape
    # Automatic exposure, as in cameras, so that dark clothes in the shade stay recognisable.
    brightness, covered = 0.0, 1e-6
    for row in range(height):
        for column in range(width):
            covered += coverage[row, column]
            for channel in range(3):
                brightness += np.sqrt(lit[row, column, channel]) / 3
    gain = min(max(0.45 / max(brightness / covered, 0.05), 0.6), 2.2) * exposure * exposure
    image = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            behind = (1 - coverage[row, column]) * (1 - (1 - darkest) * shadow[row, column]) * exposure * exposure
            for channel in range(3):
                value = gain * lit[row, column, channel] + behind * background[row, column, channel] ** 2
                value = 255 * np.sqrt(value) + noise[row, column, channel]
                image[row, column, channel] = np.uint8(min(max(value, 0.0), 255.0))
    return image


@numba.njit(cache=True)
def _ground_shadow(
    eye: Array, pixel_to_ray: Array, shadow_map: Float32, to_map: Array, height: int, width: int
) -> NDArray[np.uint8]:
    """(height, width) 255 where people or objects keep the light from the ground, else 0."""
    shadow = np.zeros((height, width), np.uint8)
    size = shadow_map.shape[0]
    for row in range(height):
        for column in range(width):
            px, py = column + 0.5, row + 0.5
            drop = pixel_to_ray[2, 0] * px + pixel_to_ray[2, 1] * py + pixel_to_ray[2, 2]
            if drop > -1e-6:
                continue
            reach = -eye[2] / drop
            if reach <= 0:
                continue
            x = eye[0] + reach * (pixel_to_ray[0, 0] * px + pixel_to_ray[0, 1] * py + pixel_to_ray[0, 2])
            y = eye[1] + reach * (pixel_to_ray[1, 0] * px + pixel_to_ray[1, 1] * py + pixel_to_ray[1, 2])
            u = int(np.floor(to_map[0, 0] * x + to_map[0, 1] * y + to_map[0, 3]))
            v = int(np.floor(to_map[1, 0] * x + to_map[1, 1] * y + to_map[1, 3]))
            if 0 <= u < size and 0 <= v < size and np.isfinite(shadow_map[v, u]):
                shadow[row, column] = 255
    return shadow


def annotated_keypoints(person: Person, camera: Camera) -> Array:
    """World positions (133, 3) of the keypoints that an annotator would mark.

    They are the keypoints of the person, except for the jaw of a turned head (`annotated_jaw`).
    """
    points = person.keypoints.copy()
    face = points[PARTS["face"]]
    face[:17] = annotated_jaw(face[:17], person.jaw_candidates, face[list(EYE_CORNERS)], camera)
    return points


def annotated_jaw(jaw: Array, candidates: Array, eye_corners: Array, camera: Camera) -> Array:
    """Jaw points as an annotator would mark them: on the side turned away they lie on the outline of the cheek.

    Args:
        jaw: (N, 3) world positions, N odd, from the person's right ear over the chin to the left ear.
        candidates: (N, C, 3) of each jaw point, see `TemplateBody.jaw_candidates98`.
        eye_corners: (2, 3) the outer corners of the right and of the left eye.
        camera: the camera that sees the face.

    Returns:
        (N, 3) world positions.
    """
    marked = jaw.copy()
    eyes = camera.project(eye_corners)
    axis = unit(eyes[1] - eyes[0])
    least = 0.01 * float(np.sqrt(((eyes[1] - eyes[0]) ** 2).sum()))
    outline = camera.project(candidates)
    chin = len(jaw) // 2
    for k in range(len(jaw)):
        if k == chin:
            continue
        outward = product(outline[k], -axis if k < chin else axis)
        best = int(np.argmax(outward))
        if outward[best] - outward[0] > least:
            marked[k] = candidates[k, best]
    return marked


def visibility(points: Array, index: int, camera: Camera, rendering: Rendering) -> NDArray[np.int64]:
    """Whether each keypoint of a person is visible.

    Args:
        points: (133, 3) world positions.
        index: the person's index in the scene.
        camera: the camera of the scene.
        rendering: the rendered scene.

    Returns:
        (133,) 0: outside the image, 1: hidden, 2: visible.
    """
    height, width = camera.size
    seen = camera.to_camera(points)
    pixels = camera.project(points)
    inside = (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height) & (seen[:, 2] > 0.05)
    result = np.zeros(len(points), np.int64)
    columns = np.clip((pixels[:, 0] * rendering.scale).astype(int), 0, rendering.depth.shape[1] - 1)
    rows = np.clip((pixels[:, 1] * rendering.scale).astype(int), 0, rendering.depth.shape[0] - 1)
    front = rendering.depth[rows, columns]
    whose = rendering.owner[rows, columns]
    near = ~np.isfinite(front) | (seen[:, 2] - front < _DEPTH_TOLERANCE)
    own = (whose == BACKGROUND) | (whose == index) | (seen[:, 2] < front)
    result[inside] = np.where(near & own, 2, 1)[inside]
    return result

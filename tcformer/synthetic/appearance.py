"""Skin, hair and clothes: sampled at random, and painted pixel by pixel.

There are no texture images. The colour of a pixel follows from its position on the mean body in rest position and from
a few scalars fixed to the mesh (how far down the arm, how much head, lip, ...).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from tcformer.synthetic.exact import exponential, sine
from tcformer.synthetic.geometry import Array, Float32, Int32
from tcformer.synthetic.template_body import BODY, EYES, HAIR, SKIN_VERTICES, SKIRT, TEETH, TONGUE, TemplateBody

# sRGB, 0 to 255.
_SKIN = (
    (240, 206, 184),
    (230, 190, 160),
    (218, 172, 136),
    (205, 150, 110),
    (170, 115, 80),
    (135, 85, 60),
    (98, 62, 44),
)
_HAIR = ((22, 20, 20), (55, 35, 25), (110, 70, 45), (190, 140, 90), (165, 160, 150), (120, 45, 30))
_HAIR_WEIGHTS = (0.35, 0.25, 0.15, 0.1, 0.08, 0.07)
_LIPSTICK = ((190, 20, 40), (200, 30, 90), (140, 40, 50))
_IRIS = ((90, 60, 40), (50, 35, 25), (80, 120, 150), (90, 110, 80))

SHORT, LONG, BALD, CAP = range(4)
PLAIN, STRIPES_ACROSS, STRIPES_ALONG, CHECKS, DOTS, CAMOUFLAGE = range(6)

# Columns of `_vertex_attributes` after the rest position.
_ARM_POSITION, _LEG_POSITION, _LEG, _ARM, _FOOT, _HEAD, _HAND, _LIP_OR_EAR = range(3, 11)


class Appearance(NamedTuple):
    """How one person looks. Colours (3,) are sRGB, 0 to 1; heights are metres relative to the mean body's."""

    skin: Float32
    lips: Float32
    hair: Float32
    iris: Float32
    top: Float32
    top_pattern_colour: Float32
    bottom: Float32
    shoes: Float32
    hairstyle: int
    hairline: float
    pattern: int
    pattern_frequency: float
    """Radians per metre."""
    sleeve: float
    """Length of the sleeves as a fraction of the arm, 0 at the shoulder, 1 at the wrist."""
    hem: float
    """Where the trousers end as a fraction of the leg, 0 at the ankle, 1 at the hip."""
    waist: float
    neckline: float
    skirt: bool
    looseness: float
    """Distance between clothes and body, metres."""
    eye_shadow: Float32
    """Colour of made-up eyelids."""
    eye_shadow_strength: float = 0.0
    """Share of `eye_shadow` in the colour of the eyelids, 0 to 1."""
    lip_strength: float = 0.7
    """Share of `lips` in the colour of the lips, 0 to 1."""
    blush_strength: float = 0.1
    """Share of red in the colour of the cheeks, 0 to 1."""


class FaceFeatures(NamedTuple):
    """Where the painted features lie on the mean face, metres."""

    eyebrows: Array
    """(2, 5, 3) five points along each eyebrow."""
    cheeks: Array
    """(2, 3)"""
    pupils: Array
    """(2, 3)"""
    eyelids: Array
    """(2, 3) middles of the upper eyelids."""
    eye_y: float
    eye_z: float
    """Position of an eye's middle."""


@lru_cache(maxsize=1)
def _face_features(body: TemplateBody) -> FaceFeatures:
    mark = body.face98.on(body.mean).astype(np.float64)
    eyebrows = np.array(
        [
            [mark[33], *((mark[i] + mark[j]) / 2 for i, j in ((34, 41), (35, 40), (36, 39), (37, 38)))],
            [mark[46], *((mark[i] + mark[j]) / 2 for i, j in ((45, 47), (44, 48), (43, 49), (42, 50)))],
        ]
    )
    cheeks = np.array([[mark[66, 0] - 0.012, mark[66, 1] + 0.012, mark[54, 2]]] * 2)
    cheeks[1, 0] *= -1
    eye = (mark[60] + mark[72]) / 2
    # A third of the way from the lid's edge to the eyebrow.
    eyelids = np.array(
        [(2 * mark[lid].mean(0) + mark[brow]) / 3 for lid, brow in (([61, 62, 63], 39), ([69, 70, 71], 49))]
    )
    return FaceFeatures(eyebrows, cheeks, mark[96:98], eyelids, float(eye[1]), float(eye[2]))


@lru_cache(maxsize=1)
def _vertex_attributes(body: TemplateBody) -> Float32:
    """(V, 11) what painting needs of each vertex: its rest position and eight scalars."""
    part = body.part_weights
    columns = (body.arm_position, body.leg_position, part["leg"], part["arm"], part["foot"], part["head"])
    return np.column_stack([body.mean, *columns, part["hand"], body.lip_or_ear]).astype(np.float32)


def random_colour(rng: np.random.Generator, saturation: float = 1.0) -> Float32:
    """A random sRGB colour (3,), 0 to 1, dark or light, of any hue; saturation 0 gives greys."""
    hue, colourful = rng.uniform(0, 6), rng.uniform(0, 0.75) * saturation
    value = rng.uniform(0.14, 0.4) if rng.uniform() < 0.4 else rng.uniform(0.4, 0.95)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - colourful * (1 - wheel)), np.float32)


def _table_colour(table: tuple[tuple[int, int, int], ...], index: int) -> Float32:
    return np.array(table[index], np.float32) / np.float32(255)


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Sample skin, hair and clothes."""
    tone = rng.uniform(0, len(_SKIN) - 1.001)
    lower = int(tone)
    mix = np.float32(tone - lower)
    skin = _table_colour(_SKIN, lower) * (1 - mix) + _table_colour(_SKIN, lower + 1) * mix
    lips = 0.5 * skin + 0.5 * np.array([0.72, 0.36, 0.38], np.float32)
    skirt = bool(rng.uniform() < 0.15)
    return Appearance(
        skin=skin,
        lips=lips,
        hair=_table_colour(_HAIR, int(rng.choice(len(_HAIR), p=_HAIR_WEIGHTS))),
        iris=_table_colour(_IRIS, int(rng.integers(len(_IRIS)))),
        top=random_colour(rng),
        top_pattern_colour=random_colour(rng),
        bottom=random_colour(rng, 0.7),
        shoes=random_colour(rng, 0.6),
        hairstyle=int(rng.choice(4, p=[0.55, 0.25, 0.08, 0.12])),
        hairline=float(rng.uniform(-0.008, 0.012)),
        pattern=int(rng.choice(6, p=[0.4, 0.15, 0.1, 0.1, 0.1, 0.15])),
        pattern_frequency=float(rng.uniform(40, 160)),
        sleeve=float(rng.choice([0.1, 0.25, 0.42, 0.9], p=[0.1, 0.35, 0.1, 0.45])),
        hem=0.62 if skirt else float(rng.choice([0.0, 0.45, 0.62], p=[0.65, 0.2, 0.15])),
        waist=float(rng.uniform(-0.02, 0.05)),
        neckline=float(rng.uniform(-0.01, 0.03)),
        skirt=skirt,
        looseness=float(rng.uniform(0.004, 0.016)),
        eye_shadow=skin,
    )


def put_on_make_up(appearance: Appearance, rng: np.random.Generator) -> Appearance:
    """The same person with lipstick, eye shadow and blush."""
    return appearance._replace(
        lips=_table_colour(_LIPSTICK, int(rng.integers(len(_LIPSTICK)))),
        eye_shadow=random_colour(rng) * np.float32(0.8),
        lip_strength=float(rng.uniform(0.85, 1.0)),
        eye_shadow_strength=float(rng.uniform(0.55, 0.85)),
        blush_strength=float(rng.uniform(0.25, 0.45)),
    )


def drawn_faces(body: TemplateBody, appearance: Appearance) -> Int32:
    """Indices of the mesh's faces that are drawn: skirt and long hair only for a person who has them."""
    groups = [BODY, EYES, TEETH, TONGUE]
    if appearance.hairstyle == LONG:
        groups.append(HAIR)
    if appearance.skirt:
        groups.append(SKIRT)
    return np.flatnonzero(np.isin(body.face_group, groups)).astype(np.int32)


@lru_cache(maxsize=1)
def _folds(body: TemplateBody) -> Array:
    """(V,) folds of the clothes at each vertex, -1 to 1."""
    return np.array([sine(float(z) * 40 + float(x) * 25) for x, z in body.mean[:, [0, 2]]])


def dress(body: TemplateBody, appearance: Appearance, vertices: Float32) -> Float32:
    """Vertices (V, 3) in rest position, moved outwards along the normals where clothes and hair are."""
    rest, part = body.mean, body.part_weights
    sleeve = (part["arm"] > 0.5) & (body.arm_position < appearance.sleeve)
    covered = (rest[:, 2] > body.waist_height + appearance.waist) | (body.leg_position > appearance.hem)
    trunk = (part["arm"] <= 0.5) & (part["head"] < 0.5) & (part["foot"] < 0.5) & covered
    trunk &= rest[:, 2] < body.neck_height + appearance.neckline
    cloth = (sleeve | trunk) & (np.arange(len(rest)) < SKIN_VERTICES)
    offset = cloth * appearance.looseness * (1 + 0.5 * _folds(body))
    if appearance.hairstyle != BALD:
        offset = offset + body.hair * (0.008 if appearance.hairstyle == CAP else 0.012)
    return vertices + body.mean_normals * offset[:, None].astype(np.float32)


def paint(
    body: TemplateBody,
    appearance: Appearance,
    first_face: int,
    drawn: Int32,
    face_of_pixel: Int32,
    weights: Float32,
    albedo: Float32,
) -> None:
    """Write a person's colours into the pixels that show the person.

    Args:
        body: the template body.
        appearance: how the person looks.
        first_face: number of the person's first face in `face_of_pixel`.
        drawn: (F,) the person's faces as indices of the template's faces, from `drawn_faces`.
        face_of_pixel: (h, w) from `rasterize`.
        weights: (h, w, 2) from `rasterize`.
        albedo: (h, w, 3) sRGB, 0 to 1; changed in place.
    """
    _paint(
        appearance, _face_features(body), body.waist_height, body.neck_height, _vertex_attributes(body), body.faces,
        body.face_group, first_face, drawn, face_of_pixel, weights, albedo,
    )  # fmt: skip


@numba.njit(cache=True)
def _mix(albedo: Float32, row: int, column: int, colour: Float32, share: float) -> None:
    for channel in range(3):
        albedo[row, column, channel] += share * (colour[channel] - albedo[row, column, channel])


@numba.njit(cache=True)
def _in_pattern(kind: int, frequency: float, x: float, y: float, z: float) -> bool:
    if kind == STRIPES_ACROSS:
        return sine(z * frequency) > 0
    if kind == STRIPES_ALONG:
        return sine(x * frequency) > 0.3
    if kind == CHECKS:
        return (sine(x * frequency) > 0) != (sine(z * frequency) > 0)
    if kind == DOTS:
        return sine(x * frequency) * sine(z * frequency) > 0.5
    if kind == CAMOUFLAGE:
        bent = 2 * sine(frequency * (-0.25 * x + 0.15 * y + 0.4 * z))
        return sine(frequency * (0.5 * x + 0.35 * y + 0.2 * z) + bent) > 0.2
    return False


@numba.njit(cache=True)
def _eyebrow(eyebrows: Array, x: float, y: float, z: float) -> float:
    """Share of the eyebrows in the colour at (x, y, z), 0 to 1."""
    nearest = 9.0
    for brow in range(2):
        for k in range(4):
            ax, ay, az = eyebrows[brow, k]
            bx, by, bz = (
                eyebrows[brow, k + 1, 0] - ax,
                eyebrows[brow, k + 1, 1] - ay,
                eyebrows[brow, k + 1, 2] - az,
            )
            t = ((x - ax) * bx + (y - ay) * by + (z - az) * bz) / (bx * bx + by * by + bz * bz)
            t = min(max(t, 0.0), 1.0)
            distance = np.sqrt((x - ax - t * bx) ** 2 + (y - ay - t * by) ** 2 + (z - az - t * bz) ** 2)
            nearest = min(nearest, distance / (0.0016 + 0.00055 * (k + t)))
    return min(max(1.6 - nearest, 0.0), 1.0) * 0.85


@numba.njit(cache=True)
def _paint(
    appearance: Appearance,
    face: FaceFeatures,
    waist_height: float,
    neck_height: float,
    vertex_attributes: Float32,
    faces: Int32,
    face_group: NDArray[np.uint8],
    first_face: int,
    drawn: Int32,
    face_of_pixel: Int32,
    weights: Float32,
    albedo: Float32,
) -> None:
    height, width = face_of_pixel.shape
    values = np.empty(11, np.float32)
    white_of_eye = np.array([0.91, 0.90, 0.88], np.float32)
    pupil = np.array([0.04, 0.04, 0.04], np.float32)
    tooth = np.array([0.92, 0.88, 0.84], np.float32)
    tongue = np.array([0.67, 0.31, 0.31], np.float32)
    blush = np.array([0.84, 0.24, 0.24], np.float32)
    for row in range(height):
        for column in range(width):
            k = face_of_pixel[row, column] - first_face
            if k < 0 or k >= drawn.shape[0]:
                continue
            index = drawn[k]
            wa, wb = weights[row, column, 0], weights[row, column, 1]
            wc = np.float32(1.0) - wa - wb
            a, b, c = faces[index, 0], faces[index, 1], faces[index, 2]
            for i in range(11):
                values[i] = wa * vertex_attributes[a, i] + wb * vertex_attributes[b, i] + wc * vertex_attributes[c, i]
            x, y, z = values[0], values[1], values[2]
            group = face_group[index]
            if group == HAIR:
                strand = 0.8 + 0.35 * abs(sine(x * 700))
                for channel in range(3):
                    albedo[row, column, channel] = appearance.hair[channel] * strand
                continue
            if group == SKIRT:
                _mix(albedo, row, column, appearance.bottom, 1.0)
                continue
            if group == TEETH:
                _mix(albedo, row, column, tooth, 1.0)
                continue
            if group == TONGUE:
                _mix(albedo, row, column, tongue, 1.0)
                continue
            if group == EYES:
                distance = 9.0
                for eye in range(2):
                    away = (x - face.pupils[eye, 0]) ** 2 + (y - face.pupils[eye, 1]) ** 2
                    distance = min(distance, np.sqrt(away + (z - face.pupils[eye, 2]) ** 2))
                if distance < 0.0027:
                    _mix(albedo, row, column, pupil, 1.0)
                elif distance < 0.0060:
                    _mix(albedo, row, column, appearance.iris, 1.0)
                else:
                    _mix(albedo, row, column, white_of_eye, 1.0)
                continue
            head, on_hand, foot = values[_HEAD] > 0.5, values[_HAND] > 0.5, values[_FOOT] > 0.5
            on_arm = values[_ARM] > 0.5
            if foot or (values[_LEG_POSITION] < 0.03 and values[_LEG] > 0.5 and not on_arm):
                _mix(albedo, row, column, appearance.shoes, 1.0)
                continue
            if not on_hand and not head:
                neckline = neck_height + appearance.neckline - 0.25 * min(max(-y - 0.02, 0.0), 0.2)
                above_waist = z > waist_height + appearance.waist
                on_sleeve = on_arm and values[_ARM_POSITION] < appearance.sleeve
                if on_sleeve or (not on_arm and above_waist and z < neckline):
                    if _in_pattern(appearance.pattern, appearance.pattern_frequency, x, y, z):
                        _mix(albedo, row, column, appearance.top_pattern_colour, 1.0)
                    else:
                        _mix(albedo, row, column, appearance.top, 1.0)
                    continue
                if not on_arm and not above_waist and values[_LEG_POSITION] > appearance.hem:
                    _mix(albedo, row, column, appearance.bottom, 1.0)
                    continue
            mottled = sine(310 * x + 120 * y + 77 * z) + sine(90 * x + 270 * y - 130 * z)
            for channel in range(3):
                albedo[row, column, channel] = appearance.skin[channel] * (1 + 0.012 * mottled)
            if not head:
                continue
            for cheek in range(2):
                away = (x - face.cheeks[cheek, 0]) ** 2 + (y - face.cheeks[cheek, 1]) ** 2
                away += (z - face.cheeks[cheek, 2]) ** 2
                _mix(albedo, row, column, blush, appearance.blush_strength * exponential(-away / (2 * 0.016**2)))
            if appearance.eye_shadow_strength > 0:
                for lid in range(2):
                    away = (x - face.eyelids[lid, 0]) ** 2 + (y - face.eyelids[lid, 1]) ** 2
                    away += (z - face.eyelids[lid, 2]) ** 2
                    share = appearance.eye_shadow_strength * exponential(-away / (2 * 0.010**2))
                    _mix(albedo, row, column, appearance.eye_shadow, share)
            lip = min(max(values[_LIP_OR_EAR], 0.0), 1.0)
            _mix(albedo, row, column, appearance.lips, appearance.lip_strength * lip)
            _mix(albedo, row, column, appearance.hair, _eyebrow(face.eyebrows, x, y, z))
            if appearance.hairstyle != BALD and values[_LIP_OR_EAR] > -0.5:
                line = face.eye_z + 0.078 - 1.05 * min(max(y - (face.eye_y + 0.035), 0.0), 0.12)
                line += 0.0025 * sine(x * 420) * sine(x * 97) + appearance.hairline
                if z > line:
                    if appearance.hairstyle == CAP:
                        _mix(albedo, row, column, appearance.top_pattern_colour, 1.0)
                    else:
                        strand = 0.85 + 0.3 * abs(sine(x * 900 + z * 150 + 3 * sine(y * 200)))
                        for channel in range(3):
                            albedo[row, column, channel] = appearance.hair[channel] * strand

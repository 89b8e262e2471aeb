"""A portrait: one face with WFLW's 98 landmarks and six attributes, the conditions that make landmarks hard to find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

from tcformer.data.face.landmarks import EYE_CORNERS
from tcformer.synthetic.appearance import put_on_make_up, sample_appearance
from tcformer.synthetic.background import background
from tcformer.synthetic.exact import arctangent2, cosine, dot, resize, sine
from tcformer.synthetic.geometry import Array, Camera, direction_from_angles, look_at
from tcformer.synthetic.occluders import OCCLUDERS, Solid, make_occluder
from tcformer.synthetic.person import Person, assemble_person, sample_coefficients
from tcformer.synthetic.pose import Expression, Pose, PoseSpec, head_rotation, sample_expression, sample_pose
from tcformer.synthetic.render import Light, annotated_jaw, render, sample_light
from tcformer.synthetic.template_body import TemplateBody


class Attributes(NamedTuple):
    """WFLW's flags in its order (`tcformer.data.face.landmarks.ATTRIBUTES`)."""

    pose: bool
    expression: bool
    illumination: bool
    make_up: bool
    occlusion: bool
    blur: bool


@dataclass(frozen=True)
class PortraitSpec:
    """What a portrait shows; the rest is random. Fields without a comment are those of the options."""

    size: tuple[int, int]
    """Height and width of the image, pixels."""
    face_size: tuple[float, float]
    yaw_deg: float
    large_yaw_deg: tuple[float, float]
    pitch_deg: float
    roll_deg: float
    clutter: float
    photo_fraction: float
    light_range: tuple[float, float]
    supersampling: int


@dataclass(frozen=True)
class Portrait:
    """A rendered face."""

    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    points: Array
    """(98, 2) WFLW's landmarks, pixels; (0, 0) is the outer corner of the first pixel."""


_EXPRESSIONS: tuple[Expression, ...] = ("smile", "open", "surprise", "frown", "blink", "pucker")
_EXPRESSION_WEIGHTS = (0.25, 0.25, 0.22, 0.1, 0.1, 0.08)

HardLight = Literal["side", "below", "coloured", "dark", "bright"]
_HARD_LIGHTS: tuple[HardLight, ...] = get_args(HardLight)
_HARD_LIGHT_WEIGHTS = (0.4, 0.15, 0.2, 0.12, 0.13)

# Landmarks of the pupil, the upper lid and the lower lid of the right and of the left eye.
_EYES = ((96, slice(61, 64), slice(65, 68)), (97, slice(69, 72), slice(73, 76)))


def draw_portrait(body: TemplateBody, attributes: Attributes, spec: PortraitSpec, rng: np.random.Generator) -> Portrait:
    """Render a face.

    Each attribute has its own random numbers: with the same `rng`, two portraits that differ in one attribute show the
    same person.

    Args:
        body: the template body.
        attributes: of the face.
        spec: what the portrait shows.
        rng: the only source of randomness.
    """
    (
        identity_rng,
        pose_rng,
        expression_rng,
        light_rng,
        make_up_rng,
        occluder_rng,
        blur_rng,
        camera_rng,
        background_rng,
    ) = rng.spawn(9)
    person = _make_person(body, attributes, spec, identity_rng, pose_rng, expression_rng, make_up_rng)
    points = _pupils_between_lids(body.face98.on(person.skin).astype(float))
    camera = _place_camera(points, spec, camera_rng)
    points[:33] = annotated_jaw(points[:33], body.jaw_candidates98(person.skin), points[list(EYE_CORNERS)], camera)
    occluders: list[Solid] = []
    if attributes.occlusion:
        kind = OCCLUDERS[occluder_rng.integers(len(OCCLUDERS))]
        occluders.append(make_occluder(body, person, points, camera.position, kind, occluder_rng))
    light, exposure = _sample_lighting(attributes.illumination, spec.light_range, light_rng)
    behind = background(camera, spec.clutter, spec.photo_fraction, background_rng)
    rendering = render(body, [person], occluders, camera, light, behind, exposure, spec.supersampling, camera_rng)
    seen = camera.project(points)
    image = rendering.image
    if attributes.blur:
        image = _blurred(image, float(np.ptp(seen, axis=0).max()), blur_rng)
    return Portrait(image, seen)


def _make_person(
    body: TemplateBody,
    attributes: Attributes,
    spec: PortraitSpec,
    identity_rng: np.random.Generator,
    pose_rng: np.random.Generator,
    expression_rng: np.random.Generator,
    make_up_rng: np.random.Generator,
) -> Person:
    """A person who stands at the origin, the face at the wanted angle to the camera."""
    kind: Expression = "neutral"
    if attributes.expression:
        kind = _EXPRESSIONS[expression_rng.choice(len(_EXPRESSIONS), p=_EXPRESSION_WEIGHTS)]
    coefficients = sample_coefficients(body, identity_rng)
    shape = body.shape(coefficients, _with_gaze(sample_expression(body, expression_rng, kind), identity_rng))
    appearance = sample_appearance(identity_rng)
    if attributes.make_up:
        appearance = put_on_make_up(appearance, make_up_rng)
    standing = PoseSpec(posture="stand", arms="down", variety=0.0)
    pose, posture = sample_pose(body, shape.joints, standing, identity_rng)
    usual_yaw, side = pose_rng.normal(0, spec.yaw_deg), pose_rng.choice([-1, 1])
    large_yaw = side * pose_rng.uniform(*spec.large_yaw_deg)
    yaw = large_yaw if attributes.pose else usual_yaw
    factor = 1.6 if attributes.pose else 1.0
    nod, tilt = factor * pose_rng.normal(0, (spec.pitch_deg, spec.roll_deg))
    _turn_head(pose, pose_rng.normal(0, 8), nod, tilt)
    person = assemble_person(body, shape, pose, posture, appearance)
    facing = math.degrees(arctangent2(person.facing[0], -person.facing[1]))  # to the person's left
    return person.moved(float(yaw - facing), np.zeros(3))


def _pupils_between_lids(points: Array) -> Array:
    """The landmarks (98, 3) with the pupils moved between the lids, where annotators mark those of closing eyes."""
    points = points.copy()
    for pupil, upper, lower in _EYES:
        bottom = points[lower].mean(0)
        opening = points[upper].mean(0) - bottom
        height = dot(points[pupil] - bottom, opening) / max(dot(opening, opening), 1e-12)
        points[pupil] += (min(max(height, 0.0), 1.0) - height) * opening
    return points


def _with_gaze(units: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """The facial units of an expression and of eyes that look in a random direction."""
    aside, up = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.4)
    to_left = ("eyeLookOutLeft", "eyeLookInRight") if aside > 0 else ("eyeLookInLeft", "eyeLookOutRight")
    upwards = "Up" if up > 0 else "Down"
    return {
        **units,
        **{name: abs(aside) for name in to_left},
        **{f"eyeLook{upwards}{eye}": abs(up) for eye in ("Left", "Right")},
    }


def _turn_head(pose: Pose, turn: float, nod: float, tilt: float) -> None:
    """Set neck and head of a pose: degrees of the turn to the person's left, the nod down, the tilt to the right."""
    for bone, share in (("neck01", 0.25), ("neck02", 0.25), ("head", 0.5)):
        pose[bone] = head_rotation(turn * share, nod * share, tilt * share)


def _place_camera(points: Array, spec: PortraitSpec, rng: np.random.Generator) -> Camera:
    """Sample a camera at the height of the face that shows all landmarks at the wanted size."""
    height, width = spec.size
    camera = look_at((points.min(0) + points.max(0)) / 2, rng.uniform(0.6, 1.5), 0.0, spec.size)
    seen = camera.project(points)
    low, high = seen.min(0), seen.max(0)
    focal = rng.uniform(*spec.face_size) * min(height, width) / float((high - low).max())
    spare = np.array([width, height]) - focal * (high - low)
    at = np.array([width, height]) / 2 + spare * rng.uniform(-0.25, 0.25, 2)
    return camera.zoomed(focal, (low + high) / 2, at)


def _sample_lighting(hard: bool, light_range: tuple[float, float], rng: np.random.Generator) -> tuple[Light, float]:
    """Sample light and exposure; hard light is from the side or from below, coloured, far too dark or too bright."""
    light, exposure = sample_light(rng), float(rng.uniform(*light_range))
    if not hard:
        return light, exposure
    kind = _HARD_LIGHTS[rng.choice(len(_HARD_LIGHTS), p=_HARD_LIGHT_WEIGHTS)]
    if kind == "dark":
        return light, exposure * rng.uniform(0.3, 0.5)
    if kind == "bright":
        return light, exposure * rng.uniform(1.5, 1.9)
    azimuth = math.radians(rng.choice([-1, 1]) * rng.uniform(60, 115))
    elevation = math.radians(rng.uniform(-10, 40))
    if kind == "below":
        azimuth, elevation = math.radians(rng.uniform(-40, 40)), math.radians(rng.uniform(-70, -45))
    direction = direction_from_angles(azimuth, elevation)
    key, ambient = rng.uniform(1.0, 1.6) * np.ones(3), rng.uniform(0.04, 0.12) * np.ones(3)
    if kind == "coloured":
        key = key * (0.25 + 0.75 * rng.permutation([1.0, rng.uniform(0, 1), 0.0]))
        ambient = 2 * ambient * rng.uniform(0.4, 1.0, 3)
    return Light(direction, key.astype(np.float32), ambient.astype(np.float32)), exposure


def _blurred(image: NDArray[np.uint8], face_size: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image out of focus, with motion blur or enlarged; face_size: longer side of the landmarks' box, pixels."""
    kind = rng.integers(3)
    if kind == 0:
        return cv2.GaussianBlur(image, (0, 0), face_size * rng.uniform(0.018, 0.035))
    if kind == 1:
        length = max(int(face_size * rng.uniform(0.09, 0.18)), 3)
        angle = rng.uniform(0, np.pi)
        ends = (length / 2) * np.array([cosine(angle), sine(angle)])
        kernel = np.zeros((length + 2, length + 2), np.uint8)
        middle = (length + 1) / 2
        first, last = (np.rint((middle + sign * ends) * 16).astype(int) for sign in (-1, 1))
        cv2.line(kernel, (int(first[0]), int(first[1])), (int(last[0]), int(last[1])), 1, 1, cv2.LINE_8, 4)
        return _mean_of_shifted(image, kernel)
    height, width = image.shape[:2]
    factor = rng.uniform(18, 30) / face_size
    small = (max(round(height * factor), 2), max(round(width * factor), 2))
    return resize(resize(image, small, Resampling.BOX), (height, width), Resampling.BICUBIC)


def _mean_of_shifted(image: NDArray[np.uint8], kernel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The rounded mean of shifted copies of an image: one for each 1 in a square kernel, by its place in the kernel.

    The border of the image is repeated beyond it.
    """
    height, width = image.shape[:2]
    side = len(kernel)
    before = side // 2
    around = (before, side - 1 - before)
    padded = np.pad(image, (around, around, (0, 0)), "edge").astype(np.uint32)
    places = np.argwhere(kernel)
    total = sum(padded[row : row + height, column : column + width] for row, column in places)
    return np.asarray((2 * total + len(places)) // (2 * len(places)), np.uint8)

"""A scene: its people, their poses and places, and what the camera shows of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.background import background
from tcformer.synthetic.exact import arctangent2, cosine, product, sine
from tcformer.synthetic.geometry import Camera, bounds, look_at, unit
from tcformer.synthetic.person import Person, make_person
from tcformer.synthetic.pose import PoseSpec
from tcformer.synthetic.render import Box, Rendering, render, sample_light
from tcformer.synthetic.template_body import SKIN_VERTICES, TemplateBody

Framing = Literal["whole", "cropped", "upper body", "face"]


@dataclass(frozen=True)
class SceneSpec:
    """What a scene shows; the rest is random. Fields without a comment are those of the options."""

    size: tuple[int, int]
    """Height and width of the image, pixels."""
    people: int
    """Number of individuals."""
    pose: PoseSpec
    yaw_deg: float
    """Mean of the direction people face, degrees; 90: to the right of the image."""
    yaw_spread_deg: float
    """Standard deviation of that direction, degrees."""
    back_view_fraction: float
    framing: Framing
    figure_height: tuple[float, float]
    camera_pitch_deg: float
    occluder: bool
    """Whether a piece of furniture stands in front of a person."""
    crowd: bool
    """Whether a group of tiny people stands in the distance."""
    clutter: float
    photo_fraction: float
    light_range: tuple[float, float]
    supersampling: int


@dataclass(frozen=True)
class Scene:
    """A rendered scene."""

    people: list[Person]
    """The individuals, then the people of the crowd."""
    num_individuals: int
    camera: Camera
    rendering: Rendering


PersonMaker = Callable[[TemplateBody, PoseSpec, np.random.Generator], Person]
CameraPlacer = Callable[[Sequence[Person], SceneSpec, np.random.Generator], Camera]


def draw_scene(
    body: TemplateBody,
    spec: SceneSpec,
    rng: np.random.Generator,
    person_maker: PersonMaker = make_person,
    camera_placer: CameraPlacer | None = None,
) -> Scene:
    """Compose and render a scene.

    Args:
        body: the template body.
        spec: what the scene shows.
        rng: the only source of randomness.
        person_maker: samples an individual.
        camera_placer: samples the camera; by default one that shows what `spec.framing` says.
    """
    people: list[Person] = []
    boxes: list[Box] = []
    x = 0.0
    for index in range(spec.people):
        person = person_maker(body, spec.pose, rng)
        yaw = _sample_yaw(person, spec, rng)
        reach = person.skin[:SKIN_VERTICES, 0] * cosine(math.radians(yaw))
        reach -= person.skin[:SKIN_VERTICES, 1] * sine(math.radians(yaw))
        half_width = float(np.ptp(reach)) / 2
        if index:
            x += half_width * rng.uniform(0.65, 1.1)
        depth = rng.uniform(-0.5, 0.8) if index else 0.0
        person = person.moved(yaw, np.array([x, depth, 0.0]))
        x += half_width * rng.uniform(0.65, 1.1)
        people.append(person)
        if person.seat_height:
            boxes.append(_seat(person, yaw, rng))
    camera = (camera_placer or _place_camera)(people, spec, rng)
    if spec.occluder:
        boxes.append(_furniture(people[rng.integers(len(people))], rng))
    num_individuals = len(people)
    if spec.crowd:
        people += _crowd(body, camera, rng)
    behind = background(camera, spec.clutter, spec.photo_fraction, rng)
    exposure = rng.uniform(*spec.light_range)
    rendering = render(body, people, boxes, camera, sample_light(rng), behind, exposure, spec.supersampling, rng)
    return Scene(people, num_individuals, camera, rendering)


def _sample_yaw(person: Person, spec: SceneSpec, rng: np.random.Generator) -> float:
    yaw = rng.normal(spec.yaw_deg, spec.yaw_spread_deg)
    if rng.uniform() < spec.back_view_fraction:
        yaw += 180
    if person.posture == "lie":  # across the image, not with the feet towards the camera
        yaw += 90 if rng.uniform() < 0.5 else -90
    return float(yaw)


def _seat(person: Person, yaw_deg: float, rng: np.random.Generator) -> Box:
    """The stool or bench under a seated person."""
    hips, knees = person.keypoints[11:13].mean(0), person.keypoints[13:15].mean(0)
    centre = hips + 0.02 * unit([hips[0] - knees[0], hips[1] - knees[1], 0.0])
    size = (rng.uniform(0.4, 0.9), rng.uniform(0.36, 0.46), max(person.seat_height, 0.05))
    return Box((float(centre[0]), float(centre[1])), size, yaw_deg, random_colour(rng, 0.6))


def _furniture(person: Person, rng: np.random.Generator) -> Box:
    """A piece of furniture between a person and the camera."""
    front = float(person.skin[:SKIN_VERTICES, 1].min())
    middle = float(person.skin[:SKIN_VERTICES, 0].mean())
    centre = (middle + rng.uniform(-0.5, 0.5), front - rng.uniform(0.3, 0.8))
    size = (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.9))
    return Box(centre, size, rng.normal(0, 15), random_colour(rng, 0.6))


def _crowd(body: TemplateBody, camera: Camera, rng: np.random.Generator) -> list[Person]:
    """Five to nine tiny people close to each other, far behind the individuals."""
    eye = camera.position
    distance = rng.uniform(6, 9) * -float(eye[1])
    height, width = camera.size
    ray = product(camera.pixel_to_ray, np.array([rng.uniform(0.1, 0.9) * width, height / 2, 1.0]))
    middle = eye + ray * (distance - eye[1]) / ray[1]
    spec = PoseSpec(variety=0.2)
    crowd = []
    for _ in range(rng.integers(5, 10)):
        place = np.array([middle[0] + rng.normal(0, 1.0), distance + rng.normal(0, 1.0), 0.0])
        crowd.append(make_person(body, spec, rng).moved(rng.normal(0, 60), place))
    return crowd


def _place_camera(people: Sequence[Person], spec: SceneSpec, rng: np.random.Generator) -> Camera:
    """Sample a camera in front of the people that shows what `spec.framing` says."""
    height, width = spec.size
    # Every fourth vertex is enough for the outline.
    skin = np.concatenate([person.skin[:SKIN_VERTICES:4] for person in people])
    middle = bounds(skin).mean(0)
    first = people[0].keypoints
    if spec.framing == "upper body":
        hips = first[11:13].mean(0)
        subject = np.concatenate([first[:13], first[23:91], hips + [[0.35, 0, 0], [-0.35, 0, 0]]])
        subject = np.concatenate([subject, first[23:91].mean(0) + [[0.0, 0.0, 0.17]]])
        distance = rng.uniform(1.5, 3.0)
    elif spec.framing == "face":
        centre = first[23:91].mean(0)
        subject = centre + np.array([[0.0, 0.0, 0.15], [0.0, 0.0, -0.12], [0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
        distance = rng.uniform(0.8, 1.6)
    else:
        subject = skin
        distance = rng.uniform(3.0, 6.0) + 0.7 * float(np.ptp(skin[:, 0]))
    target = (subject.min(0) + subject.max(0)) / 2
    pitch = rng.normal(0, spec.camera_pitch_deg)
    if spec.framing in ("whole", "cropped"):
        target = middle
        highest_look_up = -math.degrees(arctangent2(max(target[2] - 0.1, 0.0), distance))
        pitch = max(pitch, highest_look_up)
    else:
        pitch *= 0.7
    camera = look_at(target, distance, float(pitch), spec.size)
    seen = camera.project(subject)
    low, high = seen.min(0), seen.max(0)
    extent = np.maximum(high - low, 1e-6)
    fraction = rng.uniform(*spec.figure_height)
    focal = min(fraction * height / extent[1], 0.96 * width / extent[0])
    spare = np.array([width, height]) - focal * extent
    at = np.array([width, height]) / 2 + spare * rng.uniform(-0.4, 0.4, 2)
    centre_seen = (low + high) / 2
    if spec.framing == "cropped":
        focal *= rng.uniform(1.2, 2.0)
        # This point of the group's bounding box, mostly in its upper half, comes to the middle of the image.
        centre_seen = low + extent * [rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.6)]
        at = np.array([width, height]) / 2
    return camera.zoomed(float(focal), centre_seen, at)

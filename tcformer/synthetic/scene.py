"""A scene: who is in it, how they pose, where they stand, and what the camera shows of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tcformer.rasterizer import bounds
from tcformer.synthetic.appearance import random_colour
from tcformer.synthetic.background import background
from tcformer.synthetic.body import SKIN_VERTICES, BodyModel
from tcformer.synthetic.geometry import Camera, look_at, unit
from tcformer.synthetic.person import Person, make_person
from tcformer.synthetic.pose import PoseChoice
from tcformer.synthetic.render import Box, Picture, render, sample_light

Framing = Literal["whole", "cropped", "upper body", "face"]


@dataclass(frozen=True)
class SceneChoice:
    """What a scene is to show; the rest is drawn at random. Units as in the options."""

    size: tuple[int, int]
    people: int
    pose: PoseChoice
    yaw_deg: float
    """Mean of the direction people face; 90 = to the right of the picture."""
    yaw_spread_deg: float
    back_view_fraction: float
    framing: Framing
    figure_height: tuple[float, float]
    camera_pitch_deg: float
    occluder: bool
    crowd: bool
    clutter: float
    photo_fraction: float
    light_range: tuple[float, float]
    supersampling: int


@dataclass(frozen=True)
class Scene:
    """A drawn scene. The first `named` people are individuals, the others are a crowd in the distance."""

    people: list[Person]
    named: int
    camera: Camera
    picture: Picture


MakePerson = Callable[[BodyModel, PoseChoice, np.random.Generator], Person]
Aim = Callable[[Sequence[Person], SceneChoice, np.random.Generator], Camera]


def draw_scene(
    body: BodyModel,
    choice: SceneChoice,
    rng: np.random.Generator,
    make: MakePerson = make_person,
    aim: Aim | None = None,
) -> Scene:
    """Compose and draw a scene. Everything random comes from rng.

    make: makes the individuals. aim: sets up the camera; None: one that shows what `choice.framing` asks for.
    """
    people: list[Person] = []
    boxes: list[Box] = []
    x = 0.0
    for index in range(choice.people):
        person = make(body, choice.pose, rng)
        yaw = _sample_yaw(person, choice, rng)
        reach = person.skin[:SKIN_VERTICES, 0] * math.cos(math.radians(yaw))
        reach -= person.skin[:SKIN_VERTICES, 1] * math.sin(math.radians(yaw))
        half_width = float(np.ptp(reach)) / 2
        if index:
            x += half_width * rng.uniform(0.65, 1.1)
        depth = rng.uniform(-0.5, 0.8) if index else 0.0
        person = person.moved(yaw, np.array([x, depth, 0.0]))
        x += half_width * rng.uniform(0.65, 1.1)
        people.append(person)
        if person.seat_height:
            boxes.append(_seat(person, yaw, rng))
    camera = (aim or _aim)(people, choice, rng)
    if choice.occluder:
        boxes.append(_occluder(people[rng.integers(len(people))], rng))
    named = len(people)
    if choice.crowd:
        people += _crowd(body, camera, rng)
    behind = background(camera, choice.clutter, choice.photo_fraction, rng)
    exposure = rng.uniform(*choice.light_range)
    picture = render(body, people, boxes, camera, sample_light(rng), behind, exposure, choice.supersampling, rng)
    return Scene(people, named, camera, picture)


def _sample_yaw(person: Person, choice: SceneChoice, rng: np.random.Generator) -> float:
    yaw = rng.normal(choice.yaw_deg, choice.yaw_spread_deg)
    if rng.uniform() < choice.back_view_fraction:
        yaw += 180
    if person.posture == "lie":  # across the picture, not with the feet towards the camera
        yaw += 90 if rng.uniform() < 0.5 else -90
    return float(yaw)


def _seat(person: Person, yaw_deg: float, rng: np.random.Generator) -> Box:
    """The stool or bench under a seated person."""
    hips, knees = person.keypoints[11:13].mean(0), person.keypoints[13:15].mean(0)
    centre = hips + 0.02 * unit([hips[0] - knees[0], hips[1] - knees[1], 0.0])
    size = (rng.uniform(0.4, 0.9), rng.uniform(0.36, 0.46), max(person.seat_height, 0.05))
    return Box((float(centre[0]), float(centre[1])), size, yaw_deg, random_colour(rng, 0.6))


def _occluder(person: Person, rng: np.random.Generator) -> Box:
    """A piece of furniture between a person and the camera."""
    front = float(person.skin[:SKIN_VERTICES, 1].min())
    middle = float(person.skin[:SKIN_VERTICES, 0].mean())
    centre = (middle + rng.uniform(-0.5, 0.5), front - rng.uniform(0.3, 0.8))
    size = (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.9))
    return Box(centre, size, rng.normal(0, 15), random_colour(rng, 0.6))


def _crowd(body: BodyModel, camera: Camera, rng: np.random.Generator) -> list[Person]:
    """Five to nine tiny people close together, far behind the others."""
    eye = camera.position
    distance = rng.uniform(6, 9) * -float(eye[1])
    height, width = camera.size
    ray = camera.pixel_to_ray @ [rng.uniform(0.1, 0.9) * width, height / 2, 1.0]
    middle = eye + ray * (distance - eye[1]) / ray[1]
    choice = PoseChoice(variety=0.2)
    crowd = []
    for _ in range(rng.integers(5, 10)):
        place = np.array([middle[0] + rng.normal(0, 1.0), distance + rng.normal(0, 1.0), 0.0])
        crowd.append(make_person(body, choice, rng).moved(rng.normal(0, 60), place))
    return crowd


def _aim(people: Sequence[Person], choice: SceneChoice, rng: np.random.Generator) -> Camera:
    """A camera in front of the people that shows what `choice.framing` asks for."""
    height, width = choice.size
    # Every fourth vertex shows the outline well enough.
    skin = np.concatenate([person.skin[:SKIN_VERTICES:4] for person in people])
    middle = bounds(skin).mean(0)
    first = people[0].keypoints
    if choice.framing == "upper body":
        hips = first[11:13].mean(0)
        subject = np.concatenate([first[:13], first[23:91], hips + [[0.35, 0, 0], [-0.35, 0, 0]]])
        subject = np.concatenate([subject, first[23:91].mean(0) + [[0.0, 0.0, 0.17]]])
        distance = rng.uniform(1.5, 3.0)
    elif choice.framing == "face":
        centre = first[23:91].mean(0)
        subject = centre + np.array([[0.0, 0.0, 0.15], [0.0, 0.0, -0.12], [0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
        distance = rng.uniform(0.8, 1.6)
    else:
        subject = skin
        distance = rng.uniform(3.0, 6.0) + 0.7 * float(np.ptp(skin[:, 0]))
    target = (subject.min(0) + subject.max(0)) / 2
    pitch = rng.normal(0, choice.camera_pitch_deg)
    if choice.framing in ("whole", "cropped"):
        target = middle
        highest_look_up = -np.rad2deg(np.arctan2(max(target[2] - 0.1, 0.0), distance))
        pitch = max(pitch, highest_look_up)
    else:
        pitch *= 0.7
    camera = look_at(target, distance, float(pitch), choice.size)
    seen = camera.project(subject)
    low, high = seen.min(0), seen.max(0)
    extent = np.maximum(high - low, 1e-6)
    fraction = rng.uniform(*choice.figure_height)
    focal = min(fraction * height / extent[1], 0.96 * width / extent[0])
    spare = np.array([width, height]) - focal * extent
    at = np.array([width, height]) / 2 + spare * rng.uniform(-0.4, 0.4, 2)
    centre_seen = (low + high) / 2
    if choice.framing == "cropped":
        focal *= rng.uniform(1.2, 2.0)
        # The point of the group's box that comes to the middle of the picture: rather the upper half.
        centre_seen = low + extent * [rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.6)]
        at = np.array([width, height]) / 2
    return camera.framed(float(focal), centre_seen, at)

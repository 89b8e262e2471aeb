"""Write a small classification dataset of generated people in ImageNet's folder layout.

    train/<wnid>/<wnid>_<n>.JPEG
    val/<wnid>/ILSVRC2012_val_<n>.JPEG
    classes.json    index -> [wnid, label]; the index is the rank of the sorted wnids, as in ImageNet

The wnids are invented. The classes are postures, view directions and framings, which a network that finds keypoints
has to distinguish as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.options import GenerateImagenet, check
from tcformer.synthetic.pose import Arm, PoseSpec, Posture
from tcformer.synthetic.scene import Framing, SceneSpec, draw_scene
from tcformer.synthetic.template_body import load_template_body


@dataclass(frozen=True)
class PeopleClass:
    """What the images of a class have in common; the rest is random."""

    label: str
    posture: Posture = "stand"
    arms: Arm | None = "down"
    """None: random."""
    yaw_deg: float = 0.0
    mirrored: bool = False
    """Whether half of the people face the opposite way."""
    framing: Framing = "whole"
    people: tuple[int, int] = (1, 1)
    """Smallest and largest number of people."""
    figure_height: tuple[float, float] = (0.75, 0.95)
    """Smallest and largest height of the people, as a fraction of the image's height."""


#: The classes; that of index i has the wnid `wnid(i)`.
CLASSES: tuple[PeopleClass, ...] = (
    PeopleClass("standing_arms_down"),
    PeopleClass("arms_up", arms="up"),
    PeopleClass("arms_spread", arms="side"),
    PeopleClass("hands_on_hips", arms="hip"),
    PeopleClass("sitting", posture="sit", arms="lap", yaw_deg=35, mirrored=True),
    PeopleClass("squatting", posture="squat", arms="forward", yaw_deg=25, mirrored=True),
    PeopleClass("running_side_view", posture="run", arms="swing", yaw_deg=85, mirrored=True),
    PeopleClass("back_view", yaw_deg=180),
    PeopleClass("lying", posture="lie"),
    PeopleClass("upper_body", arms=None, framing="upper body", figure_height=(0.85, 1.1)),
    PeopleClass("face", framing="face", figure_height=(0.55, 0.85)),
    PeopleClass("group", arms=None, people=(3, 4), figure_height=(0.6, 0.9)),
)

_SPLITS = ("train", "val")


def wnid(index: int) -> str:
    """The invented wnid of class `index`."""
    return f"n{90_000_000 + index}"


def generate_imagenet(root: Path, options: GenerateImagenet, map: Map = map) -> None:
    """Write the dataset into a folder, which is created if it is missing.

    Args:
        root: the folder.
        options: number and kind of the images.
        map: applies a picklable function to picklable items, possibly in parallel and in any order.

    Raises:
        UserError: if a value of the options is outside its limits.
    """
    check(options)
    counts = {"train": options.train_images_per_class, "val": options.val_images_per_class}
    for split in _SPLITS:
        for index in range(len(CLASSES)):
            (root / split / wnid(index)).mkdir(parents=True, exist_ok=True)
    items = [
        (split, label, index) for split in _SPLITS for index in range(counts[split]) for label in range(len(CLASSES))
    ]
    for _ in map(partial(_make_image, str(root), options), items):
        pass
    index_file = {str(index): [wnid(index), people.label] for index, people in enumerate(CLASSES)}
    (root / "classes.json").write_text(json.dumps(index_file, indent=1) + "\n")


def _make_image(root: str, options: GenerateImagenet, item: tuple[str, int, int]) -> None:
    """Render and write one image; the item is split, class and index within the class."""
    split, label, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, _SPLITS.index(split), label, index])
    scene = draw_scene(load_template_body(), _sample_spec(options, CLASSES[label], rng), rng)
    number = index * len(CLASSES) + label + 1
    name = f"{wnid(label)}_{index + 1}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08d}.JPEG"
    write_jpeg(Path(root, split, wnid(label), name), scene.rendering.image, options.jpeg_quality)


def _sample_spec(options: GenerateImagenet, people: PeopleClass, rng: np.random.Generator) -> SceneSpec:
    """What an image of a class shows."""
    mirrored = people.mirrored and rng.uniform() < 0.5
    return SceneSpec(
        size=options.image_size,
        people=int(rng.integers(people.people[0], people.people[1] + 1)),
        pose=PoseSpec(posture=people.posture, arms=people.arms, variety=0.5),
        yaw_deg=-people.yaw_deg if mirrored else people.yaw_deg,
        yaw_spread_deg=options.yaw_deg,
        back_view_fraction=0.0,
        framing=people.framing,
        figure_height=people.figure_height,
        camera_pitch_deg=options.camera_pitch_deg,
        occluder=False,
        crowd=False,
        clutter=options.clutter,
        photo_fraction=options.photo_fraction,
        light_range=options.light_range,
        supersampling=options.supersampling,
    )

"""Write a dataset of generated faces in WFLW's layout.

    WFLW_images/<event>/<name>.jpg
    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt

A list has one line per face with 207 fields, separated by spaces: x and y of the 98 landmarks in pixels (6 decimals;
the centre of the first pixel is 0), the box x_min y_min x_max y_max (integers), the flags pose, expression,
illumination, make-up, occlusion and blur (0 or 1), and the name of the image below WFLW_images.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.geometry import Array
from tcformer.synthetic.options import GenerateFace, check
from tcformer.synthetic.portrait import Attributes, PortraitSpec, draw_portrait
from tcformer.synthetic.template_body import load_template_body

_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"

_SPLITS = ("train", "test")
# WFLW has one image folder per event.
_EVENTS = {"train": "0--Train", "test": "1--Test"}


def generate_face(root: Path, options: GenerateFace, map: Map = map) -> None:
    """Write the dataset into a folder, which is created if it is missing.

    Args:
        root: the folder.
        options: number and kind of the images.
        map: applies a picklable function to picklable items, possibly in parallel and in any order.

    Raises:
        UserError: if a value of the options is outside its limits.
    """
    check(options)
    (root / _LISTS).mkdir(parents=True, exist_ok=True)
    for event in _EVENTS.values():
        (root / "WFLW_images" / event).mkdir(parents=True, exist_ok=True)
    counts = {"train": options.train_images, "test": options.test_images}
    items = [(split, index) for split in _SPLITS for index in range(counts[split])]
    lines = dict(map(partial(_make_image, str(root), options), items))
    for split in _SPLITS:
        content = "".join(lines[split, index] + "\n" for index in range(counts[split]))
        (root / _LISTS / f"list_98pt_rect_attr_{split}.txt").write_text(content)


def _make_image(root: str, options: GenerateFace, item: tuple[str, int]) -> tuple[tuple[str, int], str]:
    """Render and write one image; returns the item and its line of the list."""
    split, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, _SPLITS.index(split), index])
    attributes = _sample_attributes(options, index, rng)
    spec = PortraitSpec(
        size=options.image_size,
        face_size=options.face_size,
        yaw_deg=options.yaw_deg,
        large_yaw_deg=options.large_yaw_deg,
        pitch_deg=options.pitch_deg,
        roll_deg=options.roll_deg,
        clutter=options.clutter,
        photo_fraction=options.photo_fraction,
        light_range=options.light_range,
        supersampling=options.supersampling,
    )
    portrait = draw_portrait(load_template_body(), attributes, spec, rng)
    event = _EVENTS[split]
    name = f"{event}/{event.replace('--', '_')}_{index + 1}.jpg"
    write_jpeg(Path(root, "WFLW_images", name), portrait.image, options.jpeg_quality)
    points = portrait.points - 0.5
    return item, _line(points, _simulate_detection(points, options.image_size, rng), attributes, name)


def _sample_attributes(options: GenerateFace, index: int, rng: np.random.Generator) -> Attributes:
    """Sample each attribute with its fraction.

    Each of the first six faces of a split certainly has one of the six attributes, so that even a small split has all.
    """
    fractions = (
        options.pose_fraction,
        options.expression_fraction,
        options.illumination_fraction,
        options.make_up_fraction,
        options.occlusion_fraction,
        options.blur_fraction,
    )
    drawn = rng.uniform(size=len(fractions)) < fractions
    return Attributes(*(bool(d or (k == index and fractions[k] > 0)) for k, d in enumerate(drawn)))


def _simulate_detection(points: Array, size: tuple[int, int], rng: np.random.Generator) -> list[int]:
    """A box as a face detector might find it: x_min, y_min, x_max, y_max in whole pixels.

    It is narrower than the landmarks' box and higher up, by about as much as in the first line of WFLW's test list.
    """
    low, high = points.min(0), points.max(0)
    extent = high - low
    shift = rng.normal(0, 0.03, 4)
    low = low + extent * (np.array([0.07, -0.15]) + shift[:2])
    high = high + extent * (np.array([-0.07, -0.02]) + shift[2:])
    last = np.array([size[1] - 1, size[0] - 1])
    return [int(value) for value in np.concatenate([np.clip(np.rint(corner), 0, last) for corner in (low, high)])]


def _line(points: Array, box: Iterable[int], attributes: Attributes, name: str) -> str:
    """One line of a list."""
    fields = [f"{value:.6f}" for value in points.ravel()]
    fields += [str(value) for value in box] + [str(int(flag)) for flag in attributes]
    return " ".join([*fields, name])

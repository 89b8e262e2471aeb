"""Crops of people with body parameters, and mixtures of datasets, as in SPIN's training.

A crop is a square box around the person, resized to the network's input. For large crops the image is decoded at a
fraction of its size, because SPIN's resizing averages the pixels of large crops. 2D points are in units of half the
crop, with (0, 0) at its centre. Augmentation rotates and mirrors the image, the points, the 3D joints and the pose.

Source: SPIN's base_dataset.py and mixed_dataset.py (github.com/nkolot/SPIN).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_JOINTS, NUM_OPENPOSE, SPIN_FLIP
from tcformer.body.rotations import flip_pose, to_matrix
from tcformer.data.crops import SCALE_UNIT, crop_matrix, cut_crop, transform_points
from tcformer.data.images import check_images, check_size, normalise, read_reduced
from tcformer.data.mesh.bodies import Bodies
from tcformer.errors import UserError
from tcformer.parameters import parameters


@parameters
class MeshAugmentation:
    """Random changes of a training crop, in the order in which they are drawn."""

    #: probability of mirroring
    flip_probability: float
    #: largest relative change of each colour channel's brightness
    noise: float
    #: standard deviation of the rotation in degrees; rotations are clipped to twice this
    rotation: float
    #: standard deviation of the relative size of the crop, and its largest difference from 1
    scale: float
    #: probability of rotating
    rotation_probability: float


@dataclass(frozen=True)
class _Change:
    """The drawn augmentation of a crop."""

    flip: bool = False
    brightness: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rotation: float = 0.0
    scale: float = 1.0


class MeshDataset:
    """Crops of the people of one file.

    A sample contains
        image: (3, size, size) float32, RGB normalised by the ImageNet mean and standard deviation
        keypoints: (49, 3) float32 x, y in half crops from the crop's centre, confidence
        joints: (24, 4) float32 x, y, z in metres in camera axes, confidence
        rotations: (24, 3, 3) float32 of SMPL's joints, the root's in camera axes; identities if unknown
        shape: (10,) float32
        has_smpl: float, 1 if rotations and shape are known
        index: int
    and, if the dataset has a ground truth,
        truth: (14, 3) float32, the evaluated joints in metres from the pelvis

    Args:
        bodies: the people to crop.
        folder: the image folder.
        input_size: side of the network's input, pixels.
        augmentation: is applied if `sample` gets a generator; None for no augmentation.
        truth: (N, 14, 3) ground truth of the evaluated joints, metres from the pelvis.

    Raises:
        UserError: there is nobody to crop, or images are missing.
    """

    def __init__(
        self,
        bodies: Bodies,
        folder: Path,
        input_size: int,
        augmentation: MeshAugmentation | None = None,
        truth: NDArray[np.float32] | None = None,
    ) -> None:
        if not len(bodies):
            raise UserError(f"{folder}: nobody to crop in its annotations; expected at least one person")
        check_images(folder, bodies.image)
        self.bodies = bodies
        self.folder = folder
        self.input_size = input_size
        self.augmentation = augmentation
        self.truth = truth

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def num_images(self) -> int:
        """Number of image files. Several people may be on one image."""
        return len(set(self.bodies.image))

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make the crop `index`. It is augmented if there is a generator, from which all randomness comes."""
        import cv2

        bodies, size = self.bodies, self.input_size
        change = _Change()
        if rng is not None and self.augmentation is not None:
            change = _draw(self.augmentation, rng)
        side = SCALE_UNIT * bodies.scale[index] * change.scale
        image = read_reduced(self.folder / bodies.image[index], side / size)
        width = image.size[1]
        if len(bodies.image_size):
            expected = bodies.image_size[index].tolist()
            check_size((width, image.size[0]), (expected[0], expected[1]), self.folder / bodies.image[index])
        centre = bodies.centre[index]
        if change.flip:
            centre = np.array([width - 1 - centre[0], centre[1]])
        matrix = crop_matrix(
            centre, (side, side), change.rotation, (size, size), flip_width=width if change.flip else None
        )
        crop = cut_crop(image.pixels, matrix @ image.to_full(), (size, size))
        if change.brightness != (1.0, 1.0, 1.0):
            table = np.clip(np.arange(256)[:, None] * change.brightness, 0, 255).astype(np.uint8)  # (256, 3)
            crop = cv2.LUT(crop, table[:, None])
        sample = {
            "image": normalise(crop),
            "keypoints": _move_points(bodies.keypoints[index], matrix, size, change),
            "joints": _move_joints(bodies.joints[index], change),
            "rotations": _move_pose(bodies.pose[index], change),
            "shape": bodies.shape[index],
            "has_smpl": float(bodies.has_smpl[index]),
            "index": index,
        }
        if self.truth is not None:
            sample["truth"] = self.truth[index]
        return sample


def _draw(options: MeshAugmentation, rng: np.random.Generator) -> _Change:
    flip = bool(rng.random() < options.flip_probability)
    brightness = rng.uniform(1 - options.noise, 1 + options.noise, 3)
    rotation = float(np.clip(rng.standard_normal(), -2, 2)) * options.rotation
    scale = float(np.clip(1 + options.scale * rng.standard_normal(), 1 - options.scale, 1 + options.scale))
    if rng.random() >= options.rotation_probability:
        rotation = 0.0
    r, g, b = brightness.tolist()
    return _Change(flip, (r, g, b), rotation, scale)


def _move_points(
    points: NDArray[np.float32], matrix: NDArray[np.float64], size: int, change: _Change
) -> NDArray[np.float32]:
    labelled = points[:, 2:] > 0
    moved = transform_points(points[:, :2], matrix) / (0.5 * size) - 1
    result = np.concatenate([np.where(labelled, moved, 0), points[:, 2:]], 1).astype(np.float32)
    return result[SPIN_FLIP] if change.flip else result


def _rotation_of_crop(change: _Change) -> NDArray[np.float64]:
    """The rotation (3, 3), in camera axes, by which the augmentation rotates the person."""
    angle = math.radians(change.rotation)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _move_joints(joints: NDArray[np.float32], change: _Change) -> NDArray[np.float32]:
    points = joints[:, :3].astype(np.float64)
    if change.flip:
        points = points * [-1.0, 1.0, 1.0]
    moved = np.concatenate([points @ _rotation_of_crop(change).T, joints[:, 3:]], 1).astype(np.float32)
    return moved[SPIN_FLIP[NUM_OPENPOSE:] - NUM_OPENPOSE] if change.flip else moved


def _move_pose(pose: NDArray[np.float32], change: _Change) -> NDArray[np.float32]:
    axis_angles = pose.astype(np.float64)
    if change.flip:
        axis_angles = flip_pose(axis_angles)
    rotations = to_matrix(axis_angles.reshape(NUM_JOINTS, 3))
    rotations[0] = _rotation_of_crop(change) @ rotations[0]
    return rotations.astype(np.float32)


class MeshMixture:
    """A mixture of datasets, which are drawn with given probabilities.

    An epoch is as long as the largest of them. The dataset of sample `index` is drawn from the generator of the sample.
    The sample is then its crop `index` modulo its length, as in SPIN.

    Args:
        sets: the datasets.
        weights: probability of each dataset, in any unit.

    Raises:
        ValueError: there is no dataset, the number of weights is another, or a weight is not above 0.
    """

    def __init__(self, sets: Sequence[MeshDataset], weights: Sequence[float]) -> None:
        if not sets or len(sets) != len(weights) or min(weights) <= 0:
            raise ValueError(f"expected a weight above 0 for each of {len(sets)} datasets, found {list(weights)}")
        self.sets = tuple(sets)
        self.cumulative = np.cumsum(weights) / sum(weights)

    def __len__(self) -> int:
        return max(len(each) for each in self.sets)

    @property
    def num_images(self) -> int:
        """Number of image files of all datasets."""
        return sum(each.num_images for each in self.sets)

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make sample `index`, see `MeshDataset`. Without a generator, the dataset is drawn from `index` alone."""
        drawn = (np.random.default_rng(index) if rng is None else rng).random()
        chosen = self.sets[min(int(np.searchsorted(self.cumulative, drawn, "right")), len(self.sets) - 1)]
        return {**chosen.sample(index % len(chosen), rng), "index": index}


class MeshTests:
    """A concatenation of test sets.

    A sample is that of `MeshDataset`, with `index` counted over all sets, and `test`, the number of its set.
    """

    def __init__(self, sets: Sequence[MeshDataset]) -> None:
        self.sets = tuple(sets)
        self._ends = np.cumsum([len(each) for each in self.sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make the crop `index`. It is never augmented."""
        test = int(np.searchsorted(self._ends, index, "right"))
        start = int(self._ends[test]) - len(self.sets[test])
        return {**self.sets[test].sample(index - start, None), "index": index, "test": test}

"""Crops of bodies: image, points, 3D joints and pose move alike; mixtures draw as they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tcformer.body import BodyJoints, load_joints
from tcformer.body.joints import SPIN_FLIP
from tcformer.data.images import denormalise
from tcformer.data.mesh.bodies import Bodies
from tcformer.data.mesh.dataset import MeshAugmentation, MeshDataset, MeshMixture, MeshTests
from tcformer.errors import UserError
from tcformer.synthetic.smpl_body import write_smpl_body

SIZE = 96
NONE = MeshAugmentation(flip_probability=0.0, noise=0.0, rotation=0.0, scale=0.0, rotation_probability=0.0)
SPIN = MeshAugmentation(flip_probability=0.5, noise=0.4, rotation=30.0, scale=0.25, rotation_probability=0.4)
SCALE, SHIFT = 60.0, np.array([100.0, 70.0])  # pixels a metre, and where the pelvis is in the image


@pytest.fixture(scope="module")
def joints(tmp_path_factory: pytest.TempPathFactory) -> BodyJoints:
    folder = tmp_path_factory.mktemp("body")
    write_smpl_body(folder)
    return load_joints(folder)


@pytest.fixture(scope="module")
def bodies(joints: BodyJoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bodies, Path]:
    """Four bodies seen by a camera without perspective; in the image each point is a dot of its own brightness."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.3, (4, 72))
    pose[:, :3] = [np.pi, 0, 0] + rng.normal(0, 0.2, (4, 3))
    from tcformer.body.rotations import to_matrix

    turns = torch.tensor(to_matrix(pose.reshape(4, 24, 3)), dtype=torch.float32)
    spin = joints(turns, torch.zeros(4, 10)).spin.numpy()
    spin -= spin[:, 39:40]
    points = spin[:, :, :2] * SCALE + SHIFT
    folder = tmp_path_factory.mktemp("images")
    names = []
    for row in range(4):
        image = np.zeros((150, 210, 3), np.uint8)
        for x, y in points[row, [0, 29, 30]]:  # nose, left knee and ankle
            cv2.circle(image, (round(x * 16), round(y * 16)), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        names.append(f"{row}.png")
        cv2.imwrite(str(folder / names[-1]), image)
    one = np.ones((4, 49, 1))
    return (
        Bodies(
            image=tuple(names),
            centre=np.tile(SHIFT + [4.0, -3.0], (4, 1)),
            scale=np.full(4, 0.8),
            pose=pose.astype(np.float32),
            shape=np.zeros((4, 10), np.float32),
            has_smpl=np.array([True, True, True, False]),
            keypoints=np.concatenate([points, one], 2).astype(np.float32),
            joints=np.concatenate([spin[:, 25:], one[:, 25:]], 2).astype(np.float32),
            gender=np.zeros(4, np.int64),
        ),
        folder,
    )


def dataset(bodies: tuple[Bodies, Path], augmentation: MeshAugmentation | None = None) -> MeshDataset:
    return MeshDataset(*bodies, SIZE, augmentation)


def test_plain_sample(bodies: tuple[Bodies, Path]) -> None:
    sample = dataset(bodies, SPIN).sample(1, None)
    assert {name: np.shape(value) for name, value in sample.items()} == {
        **{"image": (3, SIZE, SIZE), "keypoints": (49, 3), "joints": (24, 4), "rotations": (24, 3, 3)},
        **{"shape": (10,), "has_smpl": (), "index": ()},
    }
    assert all(value.dtype == np.float32 for value in sample.values() if isinstance(value, np.ndarray))
    # The box has 160 pixels around its centre; in half boxes:
    expected = (bodies[0].keypoints[1, :, :2] - bodies[0].centre[1]) / 80
    np.testing.assert_allclose(sample["keypoints"][:, :2], expected, atol=1e-5)
    assert dataset(bodies).sample(3, None)["has_smpl"] == 0.0
    plain = dataset(bodies, NONE).sample(1, np.random.default_rng(0))
    np.testing.assert_array_equal(plain["image"], sample["image"])


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_everything_moves_alike(seed: int, flip: float, bodies: tuple[Bodies, Path], joints: BodyJoints) -> None:
    """Pose -> joints, 3D joints, 2D points and the image's dots agree after any augmentation."""
    options = replace(SPIN, flip_probability=flip, rotation_probability=1.0, noise=0.0)
    sample = dataset(bodies, options).sample(0, np.random.default_rng(seed))
    spin = joints(torch.from_numpy(sample["rotations"])[None], torch.zeros(1, 10)).spin[0].numpy()
    spin = spin - spin[39]
    tolerance = 0.02 if flip else 1e-5  # the body itself is not exactly symmetric
    assert np.abs(spin[25:] - sample["joints"][:, :3]).max() < tolerance
    # One scale and shift takes the joints in space to the points in the picture.
    from_space, in_picture = sample["joints"][:, :2], sample["keypoints"][25:, :2]
    factor = np.ptp(in_picture, axis=0) / np.ptp(from_space, axis=0)
    assert factor[0] == pytest.approx(factor[1], rel=1e-4)
    shift = in_picture - factor * from_space
    assert np.ptp(shift, axis=0).max() < 1e-4
    picture = denormalise(sample["image"])[:, :, 0]
    dots = [0, *((SPIN_FLIP[[29, 30]]).tolist() if flip else (29, 30))]  # the right leg's dots are now the left's
    for x, y in (sample["keypoints"][dots, :2] + 1) * SIZE / 2:
        column, row = round(float(x)), round(float(y))
        if 2 < row < SIZE - 3 and 2 < column < SIZE - 3:
            assert picture[row, column] > 200


def test_mirrored_crops_are_mirror_images(bodies: tuple[Bodies, Path]) -> None:
    plain = dataset(bodies).sample(2, None)
    flipped = dataset(bodies, replace(NONE, flip_probability=1.0)).sample(2, np.random.default_rng(0))
    np.testing.assert_allclose(flipped["keypoints"][SPIN_FLIP, :2] * [-1, 1], plain["keypoints"][:, :2], atol=1e-6)
    # The crop's centre lies on column SIZE / 2, so columns 1 to SIZE - 1 mirror onto each other.
    np.testing.assert_allclose(flipped["image"][:, :, 1:], plain["image"][:, :, :0:-1], atol=0.05)


def test_augmentation_is_spins(bodies: tuple[Bodies, Path]) -> None:
    """Frequencies and ranges over many draws, and one generator gives one sample."""
    data = dataset(bodies, SPIN)
    first, second = (data.sample(0, np.random.default_rng(7)) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    plain = data.sample(0, None)
    angles, flips, scales = [], [], []
    for seed in range(400):
        sample = data.sample(0, np.random.default_rng(seed))
        turn = sample["rotations"][0] @ plain["rotations"][0].T
        flipped = not np.allclose(sample["rotations"][1], plain["rotations"][1])
        flips.append(flipped)
        if not flipped:
            angles.append(np.degrees(np.arctan2(turn[0, 1], turn[0, 0])))
        extent = np.ptp(sample["joints"][:, :2], axis=0)
        scales.append(np.ptp(sample["keypoints"][25:, :2], axis=0)[0] / extent[0])
    assert 0.4 < np.mean(flips) < 0.6
    turned = np.abs(angles) > 1e-3
    assert 0.3 < turned.mean() < 0.5 and np.max(np.abs(angles)) < 60.01
    base = np.ptp(plain["keypoints"][25:, :2], axis=0)[0] / np.ptp(plain["joints"][:, 0])
    ratio = base / np.array(scales)
    assert ratio.min() > 0.749 and ratio.max() < 1.251 and 0.1 < ratio.std() < 0.25


def test_noise_changes_the_brightness_of_channels(bodies: tuple[Bodies, Path]) -> None:
    options = replace(NONE, noise=0.4)
    images = [denormalise(dataset(bodies, options).sample(0, np.random.default_rng(s))["image"]) for s in range(20)]
    brightest = np.array([image.max((0, 1)) for image in images])
    assert 140 < brightest.min() < 200 and brightest.max() == 255
    assert (np.ptp(brightest, axis=1) > 0).any()


def test_points_without_confidence_are_zero(bodies: tuple[Bodies, Path]) -> None:
    keypoints = bodies[0].keypoints.copy()
    keypoints[:, 5] = 0
    changed = replace(bodies[0], keypoints=keypoints)
    sample = MeshDataset(changed, bodies[1], SIZE, SPIN).sample(0, None)
    assert not sample["keypoints"][5].any() and sample["keypoints"][6].any()


def test_missing_images_and_empty_sets(bodies: tuple[Bodies, Path], tmp_path: Path) -> None:
    many = replace(bodies[0], image=("a/1.jpg", "a/2.jpg", "0.png", "0.png"))
    with pytest.raises(UserError, match=r"2 of 3 annotated images are missing: a/1\.jpg, a/2\.jpg; unpack"):
        MeshDataset(many, bodies[1], SIZE)
    with pytest.raises(UserError, match=r"4 of 4 annotated images are missing: 0\.png"):
        MeshDataset(bodies[0], tmp_path / "nothing", SIZE)
    empty = Bodies((), *(getattr(bodies[0], name)[:0] for name in list(Bodies.__dataclass_fields__)[1:]))
    with pytest.raises(UserError, match="nobody to crop"):
        MeshDataset(empty, bodies[1], SIZE)


def test_mixture_draws_by_weight_and_is_a_function_of_its_arguments(bodies: tuple[Bodies, Path]) -> None:
    whole = dataset(bodies)
    part = MeshDataset(
        Bodies(bodies[0].image[3:], *(getattr(bodies[0], n)[3:] for n in list(Bodies.__dataclass_fields__)[1:])),
        bodies[1],
        SIZE,
    )
    mixture = MeshMixture([whole, part], [3.0, 1.0])
    assert len(mixture) == 4
    known = [mixture.sample(0, np.random.default_rng(seed))["has_smpl"] for seed in range(400)]
    assert 0.68 < np.mean(known) < 0.82  # only the second set's person has no pose
    again = [mixture.sample(2, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(again[0]["keypoints"], again[1]["keypoints"])
    assert again[0]["index"] == 2
    assert mixture.sample(1, None)["index"] == 1
    for weights in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="expected a weight above 0"):
            MeshMixture([whole, part], weights)
    one = MeshMixture([whole], [0.3])
    np.testing.assert_array_equal(one.sample(3, None)["keypoints"], whole.sample(3, None)["keypoints"])


def test_tests_one_after_the_other(bodies: tuple[Bodies, Path]) -> None:
    data = dataset(bodies, SPIN)
    data.truth = np.arange(4 * 14 * 3, dtype=np.float32).reshape(4, 14, 3)
    both = MeshTests([data, data])
    assert len(both) == 8
    sample = both.sample(5, np.random.default_rng(0))
    assert (sample["index"], sample["test"]) == (5, 1)
    np.testing.assert_array_equal(sample["truth"], data.truth[1])
    np.testing.assert_array_equal(sample["image"], data.sample(1, None)["image"])

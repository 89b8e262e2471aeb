"""The generated dataset against the formats of SPIN and 3DPW."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tcformer.body import load_body, load_joints, load_pickle
from tcformer.body.joints import OPENPOSE_18, SPIN_NAMES
from tcformer.body.rotations import to_matrix
from tcformer.synthetic import GenerateMesh, generate_mesh

Options = Callable[..., GenerateMesh]

# The keys of the official files: a sequence of 3DPW; SPIN's dataset files without the optional masks and part names.
KEYS_3DPW = """
    sequence betas poses trans poses_60Hz trans_60Hz betas_clothed v_template_clothed genders texture_maps poses2d
    jointPositions img_frame_ids cam_poses campose_valid cam_intrinsics
"""
KEYS_SPIN = "imgname center scale pose shape part openpose S has_smpl gender"


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def shuffled(function: Callable, items: Iterable) -> list:
    order = list(items)
    random.Random(0).shuffle(order)
    return [function(item) for item in order]


def rotations(pose: np.ndarray) -> torch.Tensor:
    return torch.tensor(to_matrix(pose.reshape(-1, 24, 3)), dtype=torch.float32)


def test_training_file(mesh: Path) -> None:
    with np.load(mesh / "dataset_extras/generated_train.npz", allow_pickle=False) as file:
        data = dict(file)
    assert list(data) == KEYS_SPIN.split()
    shapes = {name: array.shape[1:] for name, array in data.items()}
    assert shapes == {
        **{"imgname": (), "center": (2,), "scale": (), "pose": (72,), "shape": (10,), "part": (24, 3)},
        **{"openpose": (25, 3), "S": (24, 4), "has_smpl": (), "gender": ()},
    }
    assert all(len(array) == 6 for array in data.values())
    joints = load_joints(mesh / "body")
    found = joints(rotations(data["pose"]), torch.tensor(data["shape"], dtype=torch.float32)).spin[:, 25:].numpy()
    np.testing.assert_allclose(found - found[:, 14:15], data["S"][:, :, :3], atol=1e-5)
    for row in range(6):
        image = cv2.imread(str(mesh / "generated" / data["imgname"][row]))
        assert image.shape == (72, 64, 3)
        seen = np.concatenate([data["openpose"], data["part"]], 1)[row]
        seen = seen[seen[:, 2] > 0]
        half = 100 * data["scale"][row]
        assert (np.abs(seen[:, :2] - data["center"][row]) <= half).mean() > 0.9
        assert len(seen) > 40
        # The 2D points are a projection of S: x to the right, y down.
        part, s = data["part"][row], data["S"][row]
        inside = part[:, 2] > 0
        for axis in (0, 1):
            assert np.corrcoef(part[inside, axis], s[inside, axis])[0, 1] > 0.8
        assert s[13, 1] < s[14, 1]  # the head is above the pelvis, at a smaller y


def test_sequences_have_3dpw_fields(mesh: Path) -> None:
    paths = sorted((mesh / "3DPW/sequenceFiles/test").iterdir())
    assert [path.name for path in paths] == ["generated_000.pkl", "generated_001.pkl"]
    for path, frames in zip(paths, (25, 2), strict=True):
        data = load_pickle(path)
        assert list(data) == KEYS_3DPW.split()
        assert data["sequence"] == path.stem and data["genders"][0] in ("m", "f")
        assert data["poses"][0].shape == (frames, 72) and data["trans"][0].shape == (frames, 3)
        assert data["poses_60Hz"][0].shape == (2 * frames, 72) and data["img_frame_ids"].shape == (frames,)
        assert data["poses2d"][0].shape == (frames, 3, 18) and data["jointPositions"][0].shape == (frames, 72)
        assert data["cam_poses"].shape == (frames, 4, 4) and data["cam_intrinsics"].shape == (3, 3)
        assert data["campose_valid"][0].shape == (frames,) and data["betas"][0].shape == (10,)
        images = sorted((mesh / "3DPW/imageFiles" / path.stem).iterdir())
        assert [image.name for image in images] == [f"image_{i:05d}.jpg" for i in range(frames)]


def test_sequences_project_onto_their_points(mesh: Path) -> None:
    """A body posed in the world, moved to the camera and projected has the 2D points of the file."""
    data = load_pickle(mesh / "3DPW/sequenceFiles/test/generated_000.pkl")
    shape = torch.tensor(np.tile(data["betas"][0], (25, 1)), dtype=torch.float32)
    posed = rotations(data["poses"][0])
    spin = load_joints(mesh / "body")(posed, shape).spin.numpy() + data["trans"][0][:, None]
    tree = load_body(mesh / "body")(posed, shape).joints[:, :24].numpy() + data["trans"][0][:, None]
    np.testing.assert_allclose(tree.reshape(25, 72), data["jointPositions"][0], atol=1e-5)
    turn, shift = data["cam_poses"][:, :3, :3], data["cam_poses"][:, :3, 3]
    seen = np.einsum("nij,nkj->nki", turn, spin) + shift[:, None]
    pixels = np.einsum("ij,nkj->nki", data["cam_intrinsics"], seen)
    pixels = (pixels[..., :2] / pixels[..., 2:])[:, list(OPENPOSE_18)]
    points = data["poses2d"][0].transpose(0, 2, 1)
    labelled = points[..., 2] > 0
    assert labelled.mean() > 0.95
    np.testing.assert_allclose(points[labelled][:, :2], pixels[labelled], atol=1e-3)
    right, left = SPIN_NAMES.index("OP right shoulder"), SPIN_NAMES.index("OP left shoulder")
    facing = np.einsum("nij,nkj->nki", turn, spin)
    nose = facing[:, 0, 2] < facing[:, 1, 2]  # the nose is nearer to the camera than the neck
    on_screen = (facing[:, left, 0] > facing[:, right, 0]) == nose
    assert on_screen.mean() > 0.7  # a person who faces the camera has the left side at the image's right


def test_same_bytes_in_any_order(mesh: Path, mesh_options: Options, tmp_path: Path) -> None:
    generate_mesh(tmp_path, mesh_options(), map=shuffled)
    assert files(tmp_path) == files(mesh)


@pytest.mark.slow
def test_same_bytes_from_two_processes(mesh: Path, mesh_options: Options, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        generate_mesh(tmp_path, mesh_options(), map=pool.map)
    assert files(tmp_path) == files(mesh)


def test_an_image_does_not_depend_on_how_many_there_are(mesh: Path, mesh_options: Options, tmp_path: Path) -> None:
    generate_mesh(tmp_path, mesh_options(train_images=1, test_images=1))
    fewer, more = files(tmp_path), files(mesh)
    images = [name for name in fewer if name.endswith(".jpg")]
    assert len(images) == 2
    assert all(fewer[name] == more[name] for name in images)


def test_a_split_may_be_empty(mesh_options: Options, tmp_path: Path) -> None:
    generate_mesh(tmp_path, mesh_options(train_images=0, test_images=1))
    assert not (tmp_path / "dataset_extras/generated_train.npz").exists()

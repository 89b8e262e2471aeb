"""The SMPL-format body and the generated data set in the formats of SPIN and 3DPW."""

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
from tcformer.synthetic.fit_regressors import H36M_JOINTS, random_bodies
from tcformer.synthetic.smpl_body import TO_SMPL, load_smpl_body

Options = Callable[..., GenerateMesh]

# The keys of the real files: a sequence of 3DPW, and SPIN's data set files without the optional mask and part names.
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


def test_regressed_joints_lie_in_the_joints() -> None:
    """On bodies and poses that the fit has not seen."""
    model = load_smpl_body()
    vertices, joints = random_bodies(model, 30, seed=9)
    for row, joint in H36M_JOINTS.items():
        regressed = np.einsum("v,nvi->ni", model.regressors.h36m[row], vertices)
        assert np.linalg.norm(regressed - joints[:, joint], axis=1).mean() < 0.01
    for matrix in (model.joint_regressor, model.regressors.h36m, model.regressors.extra):
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)


def test_the_joints_of_the_tree_follow_the_shape() -> None:
    """The rig's knees move a little less with the height than the skin around them does."""
    model = load_smpl_body()
    errors = []
    for coefficients in model.body.shape_bank[:40]:
        betas = coefficients[:10] / model.coefficient_std
        errors.append(model.shaped(betas)[1] - model.t_joints(model.rest_joints(betas)))
    distance = np.linalg.norm(errors, axis=2)
    assert distance.mean() < 0.005 and distance.max() < 0.05


def test_the_body_stands_in_t_pose_in_smpl_axes() -> None:
    model = load_smpl_body()
    arrays = model.arrays()
    height = np.ptp(arrays.v_template[:, 1])
    span = np.ptp(arrays.v_template[:, 0])
    assert 1.5 < height < 1.9 and 0.9 < span / height < 1.1
    joints = arrays.joint_regressor @ arrays.v_template
    assert np.ptp(joints[[16, 18, 20], 1]) < 0.03  # the left arm is level
    assert joints[16, 0] > 0.1 and joints[17, 0] < -0.1
    assert joints[10, 2] > joints[7, 2] + 0.05  # the toes are in front of the ankle
    np.testing.assert_allclose(arrays.weights.sum(1), 1, atol=1e-5)


def test_posing_as_smplx(mesh: Path) -> None:
    model = load_smpl_body()
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.4, (24, 3)), rng.normal(0, 1, 10)
    ours = model.posed(betas, TO_SMPL.T @ to_matrix(pose) @ TO_SMPL)
    shape = torch.tensor(betas[None], dtype=torch.float32)
    theirs = load_body(mesh / "body")(rotations(pose), shape)
    assert np.abs(ours.vertices[model.mesh] @ TO_SMPL.T - theirs.vertices[0].numpy()).max() < 1e-5
    spin = load_joints(mesh / "body")(rotations(pose), shape).spin
    assert np.abs(model.spin_joints(ours) @ TO_SMPL.T - spin[0].numpy()).max() < 1e-5


def test_bones_move_with_their_joints() -> None:
    """Key points that hang on body.npz' bones stay in place on a body posed by SMPL's joints."""
    model = load_smpl_body()
    rng = np.random.default_rng(1)
    posed = model.posed(rng.normal(0, 1, 10), TO_SMPL.T @ to_matrix(rng.normal(0, 0.3, (24, 3))) @ TO_SMPL)
    head = posed.bone_transforms[model.body.bone["head"]]
    np.testing.assert_allclose(head[:, :3] @ head[:, :3].T, np.eye(3), atol=1e-9)
    arms = [model.body.bone[name] for name in ("wrist.L", "lowerarm02.L")]
    turn = posed.bone_transforms[arms, :, :3] @ model._t_turns[arms].transpose(0, 2, 1)
    np.testing.assert_allclose(turn[0], posed.transforms[20, :, :3], atol=1e-9)
    np.testing.assert_allclose(turn[1], posed.transforms[18, :, :3], atol=1e-9)


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
        picture = cv2.imread(str(mesh / "generated" / data["imgname"][row]))
        assert picture.shape == (72, 64, 3)
        seen = np.concatenate([data["openpose"], data["part"]], 1)[row]
        seen = seen[seen[:, 2] > 0]
        half = 100 * data["scale"][row]
        assert (np.abs(seen[:, :2] - data["center"][row]) <= half).mean() > 0.9
        assert len(seen) > 40
        # The picture is a projection of S: x to the right, y down.
        part, s = data["part"][row], data["S"][row]
        inside = part[:, 2] > 0
        for axis in (0, 1):
            assert np.corrcoef(part[inside, axis], s[inside, axis])[0, 1] > 0.8
        assert s[13, 1] < s[14, 1] or "lie" in str(row)  # the head is above the pelvis, that is at smaller y


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
        pictures = sorted((mesh / "3DPW/imageFiles" / path.stem).iterdir())
        assert [picture.name for picture in pictures] == [f"image_{i:05d}.jpg" for i in range(frames)]


def test_sequences_project_onto_their_pictures(mesh: Path) -> None:
    """Posed in the world, moved to the camera, projected: the points of the file, and most pixels of the person."""
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
    assert on_screen.mean() > 0.7  # who faces the camera has the left side at the picture's right


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
    pictures = [name for name in fewer if name.endswith(".jpg")]
    assert len(pictures) == 2
    assert all(fewer[name] == more[name] for name in pictures)


def test_a_set_may_lack_a_split(mesh_options: Options, tmp_path: Path) -> None:
    generate_mesh(tmp_path, mesh_options(train_images=0, test_images=1))
    assert not (tmp_path / "dataset_extras/generated_train.npz").exists()

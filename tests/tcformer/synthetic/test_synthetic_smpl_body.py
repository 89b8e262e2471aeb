"""The SMPL-format body: its regressors, T-pose and posing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tcformer.body import load_body, load_joints
from tcformer.body.rotations import to_matrix
from tcformer.synthetic.fit_regressors import H36M_JOINTS, random_bodies
from tcformer.synthetic.smpl_body import TEMPLATE_TO_SMPL, load_smpl_body


def rotations(pose: np.ndarray) -> torch.Tensor:
    return torch.tensor(to_matrix(pose.reshape(-1, 24, 3)), dtype=torch.float32)


def test_regressors_find_the_joints() -> None:
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
    """Not exactly: with a person's height, the knees of the rig move a little less than the skin around them."""
    model = load_smpl_body()
    errors = []
    for coefficients in model.body.shape_bank[:40]:
        betas = coefficients[:10] / model.coefficient_std
        errors.append(model.shaped(betas)[1] - model.t_pose_joints(model.rest_joints(betas)))
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


def test_poses_as_smplx_does(mesh: Path) -> None:
    model = load_smpl_body()
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.4, (24, 3)), rng.normal(0, 1, 10)
    ours = model.posed(betas, TEMPLATE_TO_SMPL.T @ to_matrix(pose) @ TEMPLATE_TO_SMPL)
    shape = torch.tensor(betas[None], dtype=torch.float32)
    theirs = load_body(mesh / "body")(rotations(pose), shape)
    assert np.abs(ours.vertices[model.mesh] @ TEMPLATE_TO_SMPL.T - theirs.vertices[0].numpy()).max() < 1e-5
    spin = load_joints(mesh / "body")(rotations(pose), shape).spin
    assert np.abs(model.spin_joints(ours) @ TEMPLATE_TO_SMPL.T - spin[0].numpy()).max() < 1e-5


def test_bones_move_with_their_joints() -> None:
    """Keypoints that are fixed to the template's bones stay in place on a body posed by SMPL's joints."""
    model = load_smpl_body()
    rng = np.random.default_rng(1)
    posed = model.posed(
        rng.normal(0, 1, 10), TEMPLATE_TO_SMPL.T @ to_matrix(rng.normal(0, 0.3, (24, 3))) @ TEMPLATE_TO_SMPL
    )
    head = posed.bone_transforms[model.body.bone["head"]]
    np.testing.assert_allclose(head[:, :3] @ head[:, :3].T, np.eye(3), atol=1e-9)
    arms = [model.body.bone[name] for name in ("wrist.L", "lowerarm02.L")]
    turn = posed.bone_transforms[arms, :, :3] @ model._t_pose_rotations[arms].transpose(0, 2, 1)
    np.testing.assert_allclose(turn[0], posed.transforms[20, :, :3], atol=1e-9)
    np.testing.assert_allclose(turn[1], posed.transforms[18, :, :3], atol=1e-9)

"""Body model files, the guard against exchanged sides, and posing."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tcformer.body import convert_smpl, load_body, load_joints, load_smpl
from tcformer.body.files import check_sides, find_smpl, load_regressors, load_vertex_ids, save_smpl_pickle
from tcformer.body.joints import SMPL_FLIP, SPIN_FLIP, SPIN_JOINTS, SPIN_NAMES, VERTEX_JOINTS
from tcformer.body.rotations import flip_pose, to_matrix
from tcformer.errors import UserError
from tcformer.synthetic.smpl_body import VERTEX_IDS, load_smpl_body, write_smpl_body

RNG = np.random.default_rng(0)
POSE = RNG.normal(0, 0.5, (3, 24, 3))
BETAS = RNG.normal(0, 1, (3, 10))
ROTATIONS = torch.tensor(to_matrix(POSE), dtype=torch.float32)
SHAPE = torch.tensor(BETAS, dtype=torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The open body as a folder of body models."""
    path = tmp_path_factory.mktemp("body")
    write_smpl_body(path)
    return path


def test_tables() -> None:
    """The orders that FACTS of SPIN, OpenPose and smplx agree on."""
    from smplx.vertex_joint_selector import VertexJointSelector

    assert len(SPIN_NAMES) == len(SPIN_JOINTS) == 49 and sorted(VERTEX_IDS) == sorted(VERTEX_JOINTS)
    flip24 = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 23, 22]
    assert (SPIN_FLIP[25:] - 25).tolist() == flip24
    assert (SPIN_FLIP[SPIN_FLIP] == np.arange(49)).all() and (SMPL_FLIP[SMPL_FLIP] == np.arange(24)).all()
    numbers = {name: index for index, name in enumerate(VERTEX_JOINTS)}
    assert VertexJointSelector(numbers).extra_joints_idxs.tolist() == list(range(21))


def test_smplx_reads_the_pickle_and_poses_it_as_we_do(folder: Path, tmp_path: Path) -> None:
    import smplx

    path = tmp_path / "SMPL_NEUTRAL.pkl"
    save_smpl_pickle(load_smpl_body().arrays(), path)
    theirs = smplx.SMPL(model_path=str(path), vertex_ids=VERTEX_IDS)(
        betas=SHAPE,
        global_orient=torch.tensor(POSE[:, 0], dtype=torch.float32),
        body_pose=torch.tensor(POSE[:, 1:].reshape(3, -1), dtype=torch.float32),
        transl=torch.zeros(3, 3),
    )
    ours = load_body(folder)(ROTATIONS, SHAPE)
    torch.testing.assert_close(ours.vertices, theirs.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.joints, theirs.joints, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_joints_alone_equal_those_of_the_mesh(folder: Path) -> None:
    arrays = load_smpl(find_smpl(folder, "neutral"))
    regressors = load_regressors(folder, arrays)
    mesh, joints = load_body(folder)(ROTATIONS, SHAPE), load_joints(folder)(ROTATIONS, SHAPE)
    torch.testing.assert_close(joints.h36m, torch.from_numpy(regressors.h36m) @ mesh.vertices)
    every = torch.cat([mesh.joints, torch.from_numpy(regressors.extra) @ mesh.vertices], 1)
    torch.testing.assert_close(joints.spin, every[:, list(SPIN_JOINTS)])
    assert joints.spin.shape == (3, 49, 3) and joints.h36m.shape == (3, 17, 3)


def test_joints_are_differentiable(folder: Path) -> None:
    rotations, shape = ROTATIONS.clone().requires_grad_(), SHAPE.clone().requires_grad_()
    joints = load_joints(folder)(rotations, shape)
    joints.spin.square().sum().backward()
    assert rotations.grad is not None and rotations.grad.abs().amin((0, 2, 3))[:10].min() > 0
    assert shape.grad is not None and shape.grad.abs().min() > 0


def test_mirrored_pose_mirrors_the_joints(folder: Path) -> None:
    joints = load_joints(folder)
    first = joints(ROTATIONS, SHAPE).spin
    flipped = torch.tensor(to_matrix(flip_pose(POSE.reshape(3, 72)).reshape(3, 24, 3)), dtype=torch.float32)
    second = joints(flipped, SHAPE).spin[:, list(SPIN_FLIP)] * torch.tensor([-1.0, 1, 1])
    assert (first - second).norm(dim=-1).max() < 0.015  # the body itself is not exactly symmetric


def _legs_exchanged(h36m: np.ndarray) -> np.ndarray:
    return h36m[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]]


@pytest.mark.slow
def test_exchanged_legs_are_detected(folder: Path, tmp_path: Path) -> None:
    arrays = load_smpl(find_smpl(folder, "neutral"))
    h36m = load_regressors(folder, arrays).h36m
    check_sides(h36m, arrays.v_template, "file")
    with pytest.raises(UserError, match=r"rows \[1, 2, 3, 4, 5, 6\] lie on the other side"):
        check_sides(_legs_exchanged(h36m), arrays.v_template, "file")
    bad = shutil.copytree(folder, tmp_path / "bad")
    np.save(bad / "J_regressor_h36m.npy", np.asfortranarray(_legs_exchanged(h36m), np.float64))
    with pytest.raises(UserError, match=r"J_regressor_h36m\.npy: expected SPIN's rows"):
        load_joints(bad)
    np.save(bad / "J_regressor_h36m.npy", np.asfortranarray(h36m, np.float64))  # as SPIN's file is stored
    load_joints(bad)


@pytest.mark.slow
@pytest.mark.parametrize("vertex_count", [6890])
def test_published_pickles_convert(vertex_count: int, tmp_path: Path) -> None:
    """A file with the shapes and types of SMPL's own: 6890 vertices, 300 shapes, a sparse regressor."""
    rng = np.random.default_rng(1)
    table = np.stack([load_smpl_body().arrays().parents, np.arange(24)]).astype(np.int64)
    table[0, 0] = 2**32 - 1
    content: dict[str, Any] = {
        "v_template": rng.normal(size=(vertex_count, 3)),
        "shapedirs": rng.normal(size=(vertex_count, 3, 300)),
        "posedirs": rng.normal(size=(vertex_count, 3, 207)),
        "J_regressor": sparse.random(24, vertex_count, 0.001, "csc", rng=rng),
        "weights": np.full((vertex_count, 24), 1 / 24),
        "kintree_table": table.astype(np.uint32),
        "f": rng.integers(0, vertex_count, (13776, 3)).astype(np.uint32),
        "bs_type": "lrotmin",
    }
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    first = load_smpl(path)
    np.testing.assert_array_equal(first.shapedirs, content["shapedirs"][:, :, :10].astype(np.float32))
    np.testing.assert_array_equal(first.joint_regressor, content["J_regressor"].toarray().astype(np.float32))
    assert first.parents[:4].tolist() == [-1, 0, 0, 0]
    assert load_vertex_ids(tmp_path, first)["nose"] == 332  # smplx's own for SMPL's mesh
    convert_smpl(path, tmp_path / "a.npz")
    convert_smpl(path, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    second = load_smpl(tmp_path / "a.npz")
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", None, r"field 'weights': expected finite numbers of shape \(13524, 24\), found nothing"),
        ("posedirs", np.zeros((5, 3, 207)), r"field 'posedirs': .* found float64 of shape \(5, 3, 207\)"),
        ("v_template", np.full((13524, 3), np.nan), r"field 'v_template': expected .* of shape \(any, 3\), found NaN"),
        ("shapedirs", np.zeros((13524, 3, 9)), "expected at least 10 shapes, found 9"),
        ("f", np.full((2, 3), 13524), "field 'f': expected vertices 0 to 13523"),
        ("kintree_table", np.full((2, 24), 23), "expected parents before their children"),
        ("f", np.array([["a", "b", "c"]]), "field 'f'"),
    ],
)
def test_bad_models_are_named(folder: Path, field: str, value: Any, message: str, tmp_path: Path) -> None:
    with np.load(folder / "SMPL_NEUTRAL.npz") as file:
        content = dict(file)
    content.pop(field)
    if value is not None:
        content[field] = value
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(UserError, match=message):
        load_smpl(tmp_path / "bad.npz")


def test_bad_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no SMPL_NEUTRAL\.npz or \.pkl; get SMPL"):
        load_joints(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        load_smpl(tmp_path / "none.npz")
    shutil.copy(folder / "SMPL_MALE.npz", tmp_path)
    with pytest.raises(UserError, match=r"J_regressor_h36m\.npy: no such file; get it with SPIN's data"):
        load_joints(tmp_path, "male")
    np.save(tmp_path / "J_regressor_h36m.npy", np.zeros((17, 6890)))
    with pytest.raises(UserError, match="expected 17 x 13524 numbers for this body model"):
        load_joints(tmp_path, "male")
    for name in ("J_regressor_h36m.npy", "J_regressor_extra.npy"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(UserError, match=r"vertex_ids\.json: no such file; a body model of 13524"):
        load_joints(tmp_path, "male")
    (tmp_path / "vertex_ids.json").write_text(json.dumps({"nose": 20_000}))
    with pytest.raises(UserError, match="expected vertex numbers below 13524"):
        load_joints(tmp_path, "male")
    (tmp_path / "SMPL_NEUTRAL.npz").write_bytes(b"PK broken")
    with pytest.raises(UserError, match=r"cannot be read as \.npz"):
        load_smpl(tmp_path / "SMPL_NEUTRAL.npz")

"""SPIN's, 3DPW's and EFT's files to one form, and what is wrong with those that are broken."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcformer.body import load_joints
from tcformer.body.files import GENDERS
from tcformer.body.joints import OPENPOSE_18, SPIN_NAMES
from tcformer.body.rotations import to_axis_angle, to_matrix
from tcformer.data.mesh.files import load_3dpw, load_bodies, load_spin
from tcformer.errors import UserError
from tcformer.synthetic import GenerateMesh, generate_mesh

RNG = np.random.default_rng(0)
COUNT = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated dataset."""
    path = tmp_path_factory.mktemp("mesh")
    options = GenerateMesh(
        seed=1, train_images=4, test_images=6, image_size=(64, 64), figure_height=(0.7, 0.9), yaw_deg=30.0,
        back_view_fraction=0.0, camera_pitch_deg=5.0, pose_variety=1.0, shape_variety=1.0, occluder_fraction=0.0,
        clutter=0.2, photo_fraction=0.0, light_range=(1.0, 1.0), supersampling=1, jpeg_quality=90,
    )  # fmt: skip
    generate_mesh(path, options)
    return path


def spin(**changes: Any) -> dict[str, Any]:
    """The content of one of SPIN's files with everything in it; None leaves a field out."""
    content: dict[str, Any] = {
        "imgname": np.array([f"images/{i}.jpg" for i in range(COUNT)]),
        "center": RNG.uniform(50, 100, (COUNT, 2)),
        "scale": RNG.uniform(0.5, 2, COUNT),
        "part": RNG.uniform(0, 200, (COUNT, 24, 3)),
        "openpose": RNG.uniform(0, 200, (COUNT, 25, 3)),
        "S": RNG.normal(size=(COUNT, 24, 4)),
        "pose": RNG.normal(size=(COUNT, 72)),
        "shape": RNG.normal(size=(COUNT, 10)),
        "has_smpl": np.array([1, 0, 1, 1, 0], np.uint8),
        "gender": np.array(["m", "f", "m", "n", "f"]),
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def write_spin(folder: Path, **changes: Any) -> Path:
    path = folder / "set.npz"
    np.savez(path, **spin(**changes))
    return path


def test_spin_fields(tmp_path: Path) -> None:
    path = write_spin(tmp_path)
    with np.load(path) as content:
        bodies = load_bodies(path)
        assert len(bodies) == COUNT and bodies.image[1] == "images/1.jpg"
        np.testing.assert_array_equal(bodies.centre, content["center"])
        np.testing.assert_array_equal(bodies.scale, content["scale"])
        np.testing.assert_allclose(bodies.keypoints[:, :25], content["openpose"], rtol=1e-6)
        np.testing.assert_allclose(bodies.keypoints[:, 25:], content["part"], rtol=1e-6)
        np.testing.assert_allclose(bodies.joints, content["S"], rtol=1e-6)
        np.testing.assert_allclose(bodies.pose, content["pose"], rtol=1e-6)
        assert bodies.has_smpl.tolist() == [True, False, True, True, False]
        assert [GENDERS[g] for g in bodies.gender] == ["male", "female", "male", "neutral", "female"]


def test_spin_fields_that_are_missing(tmp_path: Path) -> None:
    """Files of other tools, with poses for all, or with 2D points alone."""
    poses = load_spin(write_spin(tmp_path, has_smpl=None, openpose=None, gender=None))
    assert poses.has_smpl.all() and not poses.keypoints[:, :25].any() and poses.keypoints[:, 25:].any()
    assert not poses.gender.any()
    points = load_spin(write_spin(tmp_path, has_smpl=None, pose=None, shape=None, S=None))
    assert not points.has_smpl.any() and not points.pose.any() and not points.joints.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": None}, "no field scale; expected one of SPIN's files"),
        ({"pose": np.zeros((COUNT, 71))}, r"field 'pose': expected finite numbers of shape \(5, 72\), found"),
        ({"part": np.full((COUNT, 24, 3), np.nan)}, r"row 0 .*field 'part': expected finite numbers.*5 rows are wrong"),
        ({"scale": np.array([1, 1, 0, 1, 1.0])}, r"row 2 .*box: expected a scale above 0, found 0"),
        ({"scale": np.array([1, 1, 1, -2, 1.0])}, r"row 3 .*found -2"),
        ({"imgname": np.array(["a.jpg", "../b.jpg", "c", "d", "e"])}, r"row 1 .*expected a path below"),
        ({"imgname": np.array(["a.jpg", "b.jpg", "c", "/d", "e"])}, r"row 3 .*expected a path below"),
        ({"imgname": np.arange(5)}, "field 'imgname': expected a string for each of 5 rows"),
        ({"shape": np.array(["a"] * 5)}, "field 'shape': expected finite numbers"),
    ],
)
def test_bad_spin_files_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_spin(write_spin(tmp_path, **changes))
    assert "set.npz" in str(caught.value)


def test_files_that_are_not_there_or_not_plain(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz: no such file; run the prepare stage"):
        load_bodies(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"none\.json: no such file; get it, or take it out"):
        load_bodies(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"no \*\.pkl; expected 3DPW's sequenceFiles"):
        load_bodies(tmp_path)
    np.savez(tmp_path / "objects.npz", imgname=np.array([{}, []], object))
    with pytest.raises(UserError, match=r"objects\.npz: cannot be read as \.npz of plain arrays"):
        load_bodies(tmp_path / "objects.npz")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_bodies(tmp_path / "bad.json")


def test_3dpw_as_generated(root: Path) -> None:
    """The same picture annotated twice: the pose in the camera's axes and the box equal those that SPIN's training
    file would hold for it."""
    bodies = load_bodies(root / "3DPW/sequenceFiles/test")
    assert bodies.image == tuple(f"generated_000/image_{i:05d}.jpg" for i in range(6))
    assert bodies.has_smpl.all() and {GENDERS[g] for g in bodies.gender} < {"male", "female"}
    rotations = torch.tensor(to_matrix(bodies.pose.reshape(-1, 24, 3)), dtype=torch.float32)
    spin_joints = load_joints(root / "body")(rotations, torch.from_numpy(bodies.shape)).spin.numpy()
    points = bodies.keypoints
    for row in range(6):
        seen = points[row, :25, 2] > 0
        for axis in (0, 1):  # camera axes: x to the right, y down
            assert np.corrcoef(points[row, :25][seen, axis], spin_joints[row, :25][seen, axis])[0, 1] > 0.97
        extent = np.ptp(points[row, :25][seen, :2], axis=0).max()
        assert bodies.scale[row] == pytest.approx(1.2 * extent / 200, rel=1e-5)
    limbs = {name: index for index, name in enumerate(SPIN_NAMES)}
    for side in ("left", "right"):
        for joint in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder"):
            pair = limbs[f"{side} {joint}"], limbs[f"OP {side} {joint}"]
            np.testing.assert_array_equal(points[:, pair[0]], points[:, pair[1]])


def edited(root: Path, folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The generated sequence with something changed."""
    source = root / "3DPW/sequenceFiles/test/generated_000.pkl"
    content = pickle.loads(source.read_bytes())
    edit(content)
    (folder / "sequence.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_3dpw_frames_people_and_coefficients(root: Path, tmp_path: Path) -> None:
    """Invalid frames and frames without 2D points are left out; two people; 300 shape coefficients."""
    before = load_3dpw(root / "3DPW/sequenceFiles/test")

    def edit(content: dict[str, Any]) -> None:
        content["campose_valid"][0][1] = 0
        content["poses2d"][0][2] = 0
        content["poses2d"][0][3][2, 1:] = 0  # a single point has no box
        for key in ("poses", "poses2d", "campose_valid"):
            content[key].append(content[key][0][:].copy())
        content["campose_valid"][1][:] = [0, 0, 0, 0, 1, 1]
        content["genders"] = ["f", "m"]
        content["betas"] = [np.pad(content["betas"][0], (0, 290)), content["betas"][0]]

    bodies = load_3dpw(edited(root, tmp_path, edit))
    assert [name[-9:-4] for name in bodies.image] == ["00000", "00004", "00005", "00004", "00005"]
    assert [GENDERS[g] for g in bodies.gender] == ["female"] * 3 + ["male"] * 2
    np.testing.assert_array_equal(bodies.shape, before.shape[:5])
    np.testing.assert_array_equal(bodies.pose[1], before.pose[4])


def test_3dpw_root_turns_from_world_to_camera(root: Path, tmp_path: Path) -> None:
    before = load_3dpw(root / "3DPW/sequenceFiles/test")
    turn = to_matrix([0.3, -1.0, 0.5])

    def edit(content: dict[str, Any]) -> None:
        """Another world."""
        content["cam_poses"][:, :3, :3] = content["cam_poses"][:, :3, :3] @ turn.T
        roots = to_axis_angle(turn @ to_matrix(content["poses"][0][:, :3]))
        content["poses"][0][:, :3] = roots

    after = load_3dpw(edited(root, tmp_path, edit))
    np.testing.assert_allclose(to_matrix(after.pose[:, :3]), to_matrix(before.pose[:, :3]), atol=1e-6)
    np.testing.assert_array_equal(after.pose[:, 3:], before.pose[:, 3:])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("genders"), "no field genders; expected a sequence of 3DPW"),
        (lambda c: c["betas"].append(0), "field 'betas': expected 1 people as in 'poses', found 2"),
        (
            lambda c: c.update(poses=[np.zeros((6, 71))]),
            r"field 'poses\[0\]': expected finite numbers of shape \(6, 72\)",
        ),
        (lambda c: c["cam_poses"].fill(np.inf), "field 'cam_poses': expected finite numbers"),
        (lambda c: c["poses2d"].__setitem__(0, np.zeros((6, 18, 3))), r"field 'poses2d\[0\]'"),
    ],
)
def test_bad_sequences_are_named(edit: Any, message: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_3dpw(edited(root, tmp_path, edit))
    assert "sequence.pkl" in str(caught.value)


def test_malicious_sequences_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sequence.pkl").write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "made").encode() + b"'\ntR.")
    with pytest.raises(UserError, match=r"sequence\.pkl: refused, because it names os\.mkdir"):
        load_3dpw(tmp_path)
    assert not (tmp_path / "made").exists()


def eft(**changes: Any) -> dict[str, Any]:
    record = {
        "parm_pose": to_matrix(RNG.normal(0, 1, (24, 3))).tolist(),
        "parm_shape": RNG.normal(0, 1, 10).tolist(),
        "parm_cam": [0.9, 0.1, 0.0],
        "bbox_scale": 1.25,
        "bbox_center": [100.5, 80.0],
        "joint_validity_openpose18": [True] * 18,
        "smpltype": "smpl",
        "annotId": 4711,
        "imageName": "COCO_train2014_000000000001.jpg",
        "gt_keypoint_2d": RNG.uniform(0, 200, (49, 3)).tolist(),
    }
    return {name: value for name, value in {**record, **changes}.items() if value is not None}


def write_eft(folder: Path, *records: Any) -> Path:
    path = folder / "eft.json"
    path.write_text(json.dumps({"ver": 0.1, "data": list(records)}))
    return path


def test_eft_fields(tmp_path: Path) -> None:
    records = [eft(), eft(gt_keypoint_2d=None)]
    bodies = load_bodies(write_eft(tmp_path, *records))
    assert bodies.image == ("COCO_train2014_000000000001.jpg",) * 2 and bodies.has_smpl.all()
    np.testing.assert_allclose(to_matrix(bodies.pose[0].reshape(24, 3)), records[0]["parm_pose"], atol=1e-6)
    np.testing.assert_allclose(bodies.keypoints[0], records[0]["gt_keypoint_2d"], rtol=1e-6)
    assert not bodies.keypoints[1].any() and bodies.scale.tolist() == [1.25, 1.25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parm_shape": [0.0] * 9}, r"annotId 4711: field 'parm_shape': expected finite numbers of shape \(10,\)"),
        ({"parm_pose": np.ones((24, 3, 3)).tolist()}, "field 'parm_pose': expected rotation matrices"),
        ({"bbox_center": [1.0, float("nan")]}, "field 'bbox_center'"),
        ({"bbox_scale": -1.0}, r"record 1 .*expected a scale above 0, found -1"),
        ({"imageName": None}, "field 'imageName'"),
        ({"gt_keypoint_2d": [[0.0], [0.0, 1.0]]}, "field 'gt_keypoint_2d'"),
    ],
)
def test_bad_records_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_bodies(write_eft(tmp_path, eft(), eft(**changes)))
    assert "eft.json: record 1" in str(caught.value)
    with pytest.raises(UserError, match="record 0"):
        load_bodies(write_eft(tmp_path, "text"))


def test_openpose_18_are_body_25s_points() -> None:
    names = [SPIN_NAMES[i].removeprefix("OP ") for i in OPENPOSE_18]
    assert names == [
        *("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist"),
        *("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
        *("right eye", "left eye", "right ear", "left ear"),
    ]


def test_the_generated_training_file_is_read(root: Path, tmp_path: Path) -> None:
    bodies = load_bodies(root / "dataset_extras/generated_train.npz")
    assert len(bodies) == 4 and bodies.has_smpl.all() and (bodies.joints[:, :, 3] == 1).all()
    shutil.copy(root / "dataset_extras/generated_train.npz", tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.npz"):
        load_bodies(tmp_path / "cut.npz")

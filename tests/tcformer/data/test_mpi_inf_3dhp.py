"""MPI-INF-3DHP from its own files: made here in its layout, with few frames."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from tcformer.body.joints import SPIN_NAMES
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.mesh.files import load_spin
from tcformer.data.mesh.mpi_inf_3dhp import CAMERAS, convert, extract_frames, is_complete, missing_frames, select
from tcformer.errors import UserError

FRAMES = 7
NAMES = (
    *("spine3", "spine4", "spine2", "spine", "pelvis", "neck", "head", "headtop"),
    *(f"{side}{joint}" for side in "LR" for joint in ("clavicle", "shoulder", "elbow", "wrist", "hand")),
    *(f"{side}{joint}" for side in "LR" for joint in ("hip", "knee", "ankle", "foot", "toe")),
)
# What SPIN's last 24 joints are called here.
SAME = {
    0: "Rankle", 1: "Rknee", 2: "Rhip", 3: "Lhip", 4: "Lknee", 5: "Lankle", 6: "Rwrist", 7: "Relbow", 8: "Rshoulder",
    9: "Lshoulder", 10: "Lelbow", 11: "Lwrist", 12: "neck", 14: "pelvis", 16: "spine", 17: "head", 18: "headtop",
}  # fmt: skip


def annotations(seed: int, frames: int = FRAMES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    content = {}
    for name, size, low, high in (("annot2", 2, 100, 1900), ("annot3", 3, -900, 900)):
        cells = np.empty((14, 1), object)
        for camera in range(14):
            cells[camera, 0] = rng.uniform(low, high, (frames, 28 * size))
        content[name] = cells
    content["annot2"][1, 0][2, 2 * NAMES.index("Rwrist")] = 2048.0  # out of the image: frame 3 of camera 1
    content["annot2"][2, 0][4, 2 * NAMES.index("Ltoe")] = -5.0  # not among the 17
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mpi")
    for seed, sequence in enumerate(mpi_inf_3dhp._sequences()):
        (root / sequence).mkdir(parents=True)
        savemat(root / sequence / "annot.mat", annotations(seed))
        for camera in CAMERAS:
            frames = root / sequence / f"imageFrames/video_{camera}"
            frames.mkdir(parents=True)
            for number in range(1, FRAMES + 1):
                (frames / f"frame_{number:06d}.jpg").touch()
    return root


def test_frames_boxes_and_joints_are_spins(folder: Path, tmp_path: Path) -> None:
    assert is_complete(folder) and not is_complete(tmp_path)
    assert convert(folder, tmp_path / "extras/mpi_inf_3dhp_train.npz") == 88
    # SPIN's loop, frame by frame.
    expected, counter = [], 0
    for seed, sequence in enumerate(mpi_inf_3dhp._sequences()):
        content = annotations(seed)
        for camera in CAMERAS:
            for frame in range(FRAMES):
                points = content["annot2"][camera, 0][frame].reshape(28, 2)
                joints = content["annot3"][camera, 0][frame].reshape(28, 3)
                taken = points[[NAMES.index(name) for name in SAME.values()]]
                if (taken < 0).any() or (taken >= 2048).any():
                    continue
                counter += 1
                if counter % 10 == 1:
                    name = f"{sequence}/imageFrames/video_{camera}/frame_{frame + 1:06d}.jpg"
                    expected.append((name, points, joints, taken))
    bodies = load_spin(tmp_path / "extras/mpi_inf_3dhp_train.npz")
    assert bodies.image == tuple(name for name, *_ in expected)
    for row, (_, points, joints, taken) in enumerate(expected):
        low, high = taken.min(0), taken.max(0)
        assert np.allclose(bodies.centre[row], (low + high) / 2)
        assert np.isclose(bodies.scale[row], 1.2 * (high - low).max() / 200)
        for place, name in SAME.items():
            here = NAMES.index(name)
            assert np.allclose(bodies.keypoints[row, 25 + place], [*points[here], 1])
            metres = (joints[here] - joints[NAMES.index("pelvis")]) / 1000
            assert np.allclose(bodies.joints[row, place], [*metres, 1], atol=1e-6)
    unknown = [place for place in range(24) if place not in SAME]
    assert not bodies.keypoints[:, [25 + place for place in unknown]].any() and not bodies.joints[:, unknown].any()
    assert not bodies.has_smpl.any() and not bodies.keypoints[:, :25].any()


def test_the_names_here_are_spins() -> None:
    last = SPIN_NAMES[25:]
    for place, name in SAME.items():
        if name[0] in "LR":
            side, joint = {"L": "left", "R": "right"}[name[0]], name[1:]
            assert side in last[place].lower() and joint in last[place].lower()


def test_the_same_file_each_time(folder: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        convert(folder, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_frames_come_from_the_videos_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi_inf_3dhp, "SUBJECTS", (3,))
    monkeypatch.setattr(mpi_inf_3dhp, "SEQUENCES", (2,))
    (tmp_path / "S3/Seq2/imageSequence").mkdir(parents=True)
    savemat(tmp_path / "S3/Seq2/annot.mat", annotations(0, 25))
    for camera in CAMERAS:
        path = str(tmp_path / f"S3/Seq2/imageSequence/video_{camera}.avi")
        video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
        for number in range(1, 22):  # fewer than there are annotations
            video.write(np.full((48, 64, 3), 10 * number, np.uint8))
        video.release()
    assert convert(tmp_path, tmp_path / "out.npz") == 17  # (8 x 21 - 1) / 10, rounded up
    names = load_spin(tmp_path / "out.npz").image
    assert names[:3] == tuple(f"S3/Seq2/imageFrames/video_0/frame_{n:06d}.jpg" for n in (1, 11, 21))
    assert not list(tmp_path.rglob("*.jpg"))
    lacking = missing_frames(tmp_path, [*names, "S3/Seq2/imageFrames/video_9/frame_000001.jpg", "other.jpg"])
    assert [frames.video for frames in lacking] == [f"S3/Seq2/imageSequence/video_{camera}.avi" for camera in CAMERAS]
    for frames in lacking:
        extract_frames(tmp_path, frames)
    for name in names:
        image = cv2.imread(str(tmp_path / name))
        assert image.shape == (48, 64, 3) and abs(image.mean() - 10 * int(name[-10:-4])) < 3
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")} == set(names)
    assert missing_frames(tmp_path, names) == []
    with pytest.raises(UserError, match=r"video_8.avi: expected at least 22 frames, found 21"):
        extract_frames(tmp_path, replace(lacking[-1], numbers=(22,)))


def test_wrong_annotations_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "S1/Seq1/annot.mat"
    path.parent.mkdir(parents=True)
    with pytest.raises(UserError, match=r"annot.mat: cannot be read as MPI-INF-3DHP's annotations"):
        select(tmp_path)
    content = annotations(0)
    content["annot3"][3, 0] = np.zeros((4, 51))
    savemat(path, content)
    with pytest.raises(UserError, match=r"'annot3', camera 3: expected .* \(7, 84\), found float64 of shape \(4, 51\)"):
        select(tmp_path)
    savemat(path, annotations(0))
    with pytest.raises(UserError, match=r"video_0: no frame_%06d.jpg, and .*video_0.avi is missing"):
        select(tmp_path)

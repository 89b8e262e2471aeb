"""MPI-INF-3DHP's training set as SPIN's .npz, made from the data set's own files.

Below the folder, for subjects S1 to S8 and their sequences Seq1 and Seq2:

    annot.mat                                 annot2 and annot3, for each of 14 cameras (frames, 28 x 2 or 28 x 3)
    imageSequence/video_<camera>.avi          2048 x 2048 pixels
    imageFrames/video_<camera>/frame_%06d.jpg the videos' frames, counted from 1, where they have been taken out

Which frames, boxes and joints are taken, and from which cameras, is as in SPIN (github.com/nkolot/SPIN,
datasets/preprocess/mpi_inf_3dhp.py), which lists frames in the order in which the disk holds them; here they are
sorted. SPIN's own file also holds SMPL fits and OpenPose's points, which cannot be made from the data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.mesh.bodies import NUM_POINTS_3D, boxes_around
from tcformer.errors import UserError
from tcformer.files import atomic_write

SUBJECTS: Final = range(1, 9)
SEQUENCES: Final = (1, 2)
CAMERAS: Final = (0, 1, 2, 4, 5, 6, 7, 8)
EVERY: Final = 10  # of the frames that show the whole person, one in so many is taken
IMAGE_SIDE: Final = 2048

_CAMERAS_OF_A_SEQUENCE = 14
_NUM_JOINTS = 28
#: Of the 28 joints: pelvis; left hip, knee, ankle; right; spine, neck, head, top; left shoulder, elbow, wrist; right.
_TAKEN = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
#: Their places among SPIN's 24.
_PLACES = (14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6)
_ROOT = 0  # the pelvis among those taken
_FRAME = re.compile(r"(S\d/Seq\d/imageFrames/video_\d+)/frame_(\d{6})\.jpg")


@dataclass(frozen=True, eq=False)
class View:
    """The frames of one camera that are taken."""

    #: (N,) images below the data set's folder
    images: tuple[str, ...]
    #: (N, 17, 2) pixels
    points: NDArray[np.float64]
    #: (N, 17, 3) millimetres, camera axes
    joints: NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """Frames of a video that are images of their own."""

    #: below the data set's folder: the video, and the folder of its frames
    video: str
    folder: str
    #: from 1
    numbers: tuple[int, ...]


def is_complete(folder: Path) -> bool:
    """Whether the annotations of all sequences are below the folder."""
    return all((folder / sequence / "annot.mat").is_file() for sequence in _sequences())


def _sequences() -> Iterator[str]:
    return (f"S{subject}/Seq{number}" for subject in SUBJECTS for number in SEQUENCES)


def select(folder: Path) -> list[View]:
    """Every tenth of the frames whose 17 joints all lie in the image, counted over all views in their order.

    Raises:
        UserError: an annotation file is missing or breaks its format, or a view has neither video nor frames.
    """
    views, counted = [], 0
    for sequence in _sequences():
        points, joints = _annotations(folder / sequence / "annot.mat")
        for camera in CAMERAS:
            video, frames = (f"{sequence}/{kind}/video_{camera}" for kind in ("imageSequence", "imageFrames"))
            there = min(_length(folder / f"{video}.avi", folder / frames), len(points[camera]))
            flat = points[camera][:there].reshape(there, -1)
            inside = np.flatnonzero(((flat >= 0) & (flat < IMAGE_SIDE)).all(1))
            rows = inside[-counted % EVERY :: EVERY]
            counted += len(inside)
            images = tuple(f"{frames}/frame_{row + 1:06d}.jpg" for row in rows.tolist())
            views.append(View(images, points[camera][rows], joints[camera][rows]))
    return views


def _annotations(path: Path) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """For each camera, the 17 joints (frames, 17, 2) in pixels and (frames, 17, 3) in millimetres."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["annot2", "annot3"])
    except Exception as error:  # scipy raises many kinds for a broken file
        raise UserError(f"{path}: cannot be read as MPI-INF-3DHP's annotations ({error}); fetch it again") from error
    found = []
    for name, size in (("annot2", 2), ("annot3", 3)):
        cells = content.get(name, np.empty((0, 1), object)).reshape(-1)
        good = len(cells) == _CAMERAS_OF_A_SEQUENCE and cells.dtype == object
        if not good or any(cell.ndim != 2 or cell.shape[1] != size * _NUM_JOINTS for cell in cells):
            raise UserError(
                f"{path}: field '{name}': expected {_CAMERAS_OF_A_SEQUENCE} cells of {size * _NUM_JOINTS} numbers a "
                f"frame; fetch it again"
            )
        found.append([cell.astype(np.float64).reshape(-1, _NUM_JOINTS, size)[:, _TAKEN] for cell in cells])
    return found[0], found[1]


def _length(video: Path, frames: Path) -> int:
    """Number of frames of a view: the video's, else the largest number of an image."""
    if video.is_file():
        import cv2

        return int(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT))
    numbers = [int(path.stem.removeprefix("frame_")) for path in frames.glob("frame_*.jpg")]
    if not numbers:
        raise UserError(
            f"{frames}: no frame_%06d.jpg, and {video} is missing; expected one of the two; get MPI-INF-3DHP's videos"
        )
    return max(numbers)


def missing_frames(folder: Path, images: Iterable[str]) -> list[Frames]:
    """Which of the named images are not there though their video is, for each video.

    Args:
        folder: the data set's.
        images: as in SPIN's .npz, below the folder.
    """
    numbers: dict[str, list[int]] = {}
    for name in images:
        match = _FRAME.fullmatch(name)
        if match and not (folder / name).exists():
            numbers.setdefault(match[1], []).append(int(match[2]))
    found = (Frames(f"{v.replace('imageFrames', 'imageSequence')}.avi", v, tuple(numbers[v])) for v in sorted(numbers))
    return [frames for frames in found if (folder / frames.video).is_file()]


def extract_frames(folder: Path, frames: Frames) -> None:
    """Write frames of a video below `folder` as images.

    Raises:
        UserError: the video ends before one of them.
    """
    import cv2

    video = cv2.VideoCapture(str(folder / frames.video))
    last = max(frames.numbers)
    for number in range(1, last + 1):
        if not video.grab():
            raise UserError(
                f"{folder / frames.video}: expected at least {last} frames, found {number - 1}; fetch it again"
            )
        if number in frames.numbers:
            with atomic_write(folder / frames.folder / f"frame_{number:06d}.jpg") as part:
                cv2.imwrite(str(part), video.retrieve()[1])


def write_spin(views: Sequence[View], target: Path) -> int:
    """Write the views' people as SPIN's mpi_inf_3dhp_train.npz, the same bytes for the same people; returns their
    number. Joints are in metres from the pelvis."""
    points = np.concatenate([view.points for view in views])
    joints = np.concatenate([view.joints for view in views]) / 1000
    centre, scale = boxes_around(np.concatenate([points, np.ones((*points.shape[:2], 1))], 2))
    part, joints_24 = np.zeros((len(points), NUM_POINTS_3D, 3)), np.zeros((len(points), NUM_POINTS_3D, 4))
    part[:, _PLACES, :2], part[:, _PLACES, 2] = points, 1
    joints_24[:, _PLACES, :3], joints_24[:, _PLACES, 3] = joints - joints[:, _ROOT, None], 1
    fields: dict[str, Any] = {
        "imgname": np.array([name for view in views for name in view.images], np.str_),
        "center": centre,
        "scale": scale,
        "part": part,
        "S": joints_24,
    }
    with atomic_write(target) as unfinished:
        np.savez(unfinished, **fields)
    return len(points)


def convert(folder: Path, target: Path) -> int:
    """Make SPIN's .npz of the data set below `folder`; returns the number of people. See `missing_frames`.

    Raises:
        UserError: see `select`.
    """
    return write_spin(select(folder), target)

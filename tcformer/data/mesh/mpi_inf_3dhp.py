"""Make SPIN's .npz of the training set of MPI-INF-3DHP from the files of the dataset.

The dataset contains, for the subjects S1 to S8 and their sequences Seq1 and Seq2:

    annot.mat                                 annot2 and annot3, for each of 14 cameras (frames, 28 x 2 or 28 x 3)
    imageSequence/video_<camera>.avi          2048 x 2048 pixels
    imageFrames/video_<camera>/frame_%06d.jpg extracted frames of the videos, counted from 1

Cameras, frames, boxes and joints are selected as in SPIN (github.com/nkolot/SPIN,
datasets/preprocess/mpi_inf_3dhp.py). SPIN lists the frames in the order of the disk; here they are sorted. SPIN's own
file also contains SMPL fits and OpenPose's points, which cannot be computed from the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import REPAIR, array_of, number_array
from tcformer.data.mesh.bodies import NUM_POINTS_3D, boxes_around
from tcformer.errors import UserError
from tcformer.files import atomic_write

SUBJECTS: Final = range(1, 9)
SEQUENCES: Final = (1, 2)
CAMERAS: Final = (0, 1, 2, 4, 5, 6, 7, 8)
EVERY: Final = 10  # of the frames that show the whole person, every 10th is used
IMAGE_SIDE: Final = 2048

_CAMERAS_OF_A_SEQUENCE = 14
_NUM_JOINTS = 28
#: The 17 used joints of the 28: pelvis; left hip, knee, ankle; right hip, knee, ankle; spine, neck, head, head top;
#: left shoulder, elbow, wrist; right shoulder, elbow, wrist.
_USED_JOINTS = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
#: Their indices among SPIN's 24.
_SPIN_INDICES = (14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6)
_ROOT = 0  # the pelvis among the used joints
_FRAME = re.compile(r"(S\d/Seq\d/imageFrames/video_\d+)/frame_(\d{6})\.jpg")


@dataclass(frozen=True, eq=False)
class View:
    """The selected frames of one camera in one sequence.

    Attributes:
        images: (N,) image files below the folder of the dataset.
        points: (N, 17, 2) pixels.
        joints: (N, 17, 3) millimetres, camera axes.
    """

    images: tuple[str, ...]
    points: NDArray[np.float64]
    joints: NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """Frames of a video that are needed as image files.

    Attributes:
        video: the video, below the folder of the dataset.
        folder: the folder of its frames, below the folder of the dataset.
        numbers: of the frames, counted from 1.
    """

    video: str
    folder: str
    numbers: tuple[int, ...]


def is_complete(folder: Path) -> bool:
    """Whether the folder contains the annotations of all sequences."""
    return all((folder / sequence / "annot.mat").is_file() for sequence in _sequences())


def _sequences() -> Iterator[str]:
    return (f"S{subject}/Seq{number}" for subject in SUBJECTS for number in SEQUENCES)


def select(folder: Path) -> list[View]:
    """Select every tenth of the frames whose 17 joints are all inside the image, counted over all views in their order.

    Raises:
        UserError: an annotation file does not exist or breaks its format, or a view has neither a video nor frames.
    """
    views, counted = [], 0
    for sequence in _sequences():
        points, joints = _annotations(folder / sequence / "annot.mat")
        for camera in CAMERAS:
            video, frames = (f"{sequence}/{kind}/video_{camera}" for kind in ("imageSequence", "imageFrames"))
            available = min(_length(folder / f"{video}.avi", folder / frames), len(points[camera]))
            flat = points[camera][:available].reshape(available, -1)
            inside = np.flatnonzero(((flat >= 0) & (flat < IMAGE_SIDE)).all(1))
            rows = inside[-counted % EVERY :: EVERY]
            counted += len(inside)
            images = tuple(f"{frames}/frame_{row + 1:06d}.jpg" for row in rows.tolist())
            views.append(View(images, points[camera][rows], joints[camera][rows]))
    return views


def _annotations(path: Path) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Read the 17 joints of each camera: (frames, 17, 2) in pixels and (frames, 17, 3) in millimetres."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["annot2", "annot3"])
    except Exception as error:  # scipy raises many types for a broken file
        raise UserError(f"{path}: cannot be read as MPI-INF-3DHP's annotations ({error}); download it again") from error
    found: list[list[NDArray[np.float64]]] = []
    for name, size in (("annot2", 2), ("annot3", 3)):
        cells = content.get(name)
        if not isinstance(cells, np.ndarray) or cells.dtype != object or cells.size != _CAMERAS_OF_A_SEQUENCE:
            raise UserError(f"{path}: field '{name}': expected {_CAMERAS_OF_A_SEQUENCE} cells; {REPAIR}")
        found.append(
            [
                number_array(
                    f"{path}: field '{name}', camera {camera}",
                    array_of(cell),
                    (None if name == "annot2" else len(found[0][camera]), size * _NUM_JOINTS),
                    finite=False,
                ).reshape(-1, _NUM_JOINTS, size)[:, _USED_JOINTS]
                for camera, cell in enumerate(cells.reshape(-1))
            ]
        )
    return found[0], found[1]


def _length(video: Path, frames: Path) -> int:
    """Number of frames of a view: that of the video, or else the largest number of an extracted frame."""
    if video.is_file():
        import cv2

        return int(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT))
    found = (re.fullmatch(r"frame_(\d{1,9})\.jpg", path.name, re.ASCII) for path in frames.glob("frame_*.jpg"))
    numbers = [int(match[1]) for match in found if match]
    if not numbers:
        raise UserError(
            f"{frames}: no frame_%06d.jpg, and {video} is missing; expected one of the two; download MPI-INF-3DHP's "
            f"videos"
        )
    return max(numbers)


def missing_frames(folder: Path, images: Iterable[str]) -> list[Frames]:
    """Find the images that do not exist but can be extracted from a video, for each video.

    Args:
        folder: of the dataset.
        images: the images that SPIN's .npz names, below the folder.
    """
    numbers: dict[str, list[int]] = {}
    for name in images:
        match = _FRAME.fullmatch(name)
        if match and not (folder / name).exists():
            numbers.setdefault(match[1], []).append(int(match[2]))
    found = (Frames(f"{v.replace('imageFrames', 'imageSequence')}.avi", v, tuple(numbers[v])) for v in sorted(numbers))
    return [frames for frames in found if (folder / frames.video).is_file()]


def extract_frames(folder: Path, frames: Frames) -> None:
    """Extract frames of a video below `folder` as images.

    Raises:
        UserError: the video has fewer frames.
    """
    import cv2

    video = cv2.VideoCapture(str(folder / frames.video))
    last = max(frames.numbers)
    for number in range(1, last + 1):
        if not video.grab():
            raise UserError(
                f"{folder / frames.video}: expected at least {last} frames, found {number - 1}; download it again"
            )
        if number in frames.numbers:
            with atomic_write(folder / frames.folder / f"frame_{number:06d}.jpg") as part:
                cv2.imwrite(str(part), video.retrieve()[1])


def write_spin(views: Sequence[View], target: Path) -> int:
    """Write the people of views as SPIN's mpi_inf_3dhp_train.npz and return their number.

    Joints are in metres from the pelvis. The same people give the same bytes.
    """
    points = np.concatenate([view.points for view in views])
    joints = np.concatenate([view.joints for view in views]) / 1000
    centre, scale = boxes_around(np.concatenate([points, np.ones((*points.shape[:2], 1))], 2))
    part, joints_24 = np.zeros((len(points), NUM_POINTS_3D, 3)), np.zeros((len(points), NUM_POINTS_3D, 4))
    part[:, _SPIN_INDICES, :2], part[:, _SPIN_INDICES, 2] = points, 1
    joints_24[:, _SPIN_INDICES, :3], joints_24[:, _SPIN_INDICES, 3] = joints - joints[:, _ROOT, None], 1
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
    """Make SPIN's .npz of the dataset in `folder` and return the number of people.

    The images that it names may still have to be extracted, see `missing_frames`.

    Raises:
        UserError: see `select`.
    """
    return write_spin(select(folder), target)

"""The pictures and videos that a person names on the command line."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.images import is_image_name
from tcformer.errors import UserError

_PICTURES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
_VIDEOS: Final = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return is_image_name(path.name, _VIDEOS)


def find_inputs(names: Sequence[str]) -> list[Path]:
    """The files that names, folders and patterns such as `*.png` stand for, each once, in their order.

    Of a folder, the pictures and videos that are directly in it are taken, sorted by name.

    Raises:
        UserError: a name stands for nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if is_image_name(file.name, _PICTURES + _VIDEOS))
            files = [file for file in files if file.is_file()]
            if not files:
                raise UserError(f"{path}: the folder has no picture and no video; give files, or a folder with some")
        elif path.exists():
            files = [path]
        else:
            files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
            if not files:
                raise UserError(f"{name}: no such file or folder, and no file matches it as a pattern; check the name")
        found.update(dict.fromkeys(files))
    return list(found)


@dataclass
class Video:
    """A video that is read frame by frame.

    Attributes:
        path: the file.
        fps: frames a second.
        length: number of frames, as the file says; it can be wrong.
    """

    path: Path
    fps: float
    length: int
    _capture: Any

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """The frames (H, W, 3) uint8 RGB."""
        while True:
            good, frame = self._capture.read()
            if not good:
                return
            yield np.ascontiguousarray(frame[..., ::-1])


@contextmanager
def opened_video(path: Path) -> Iterator[Video]:
    """Open a video.

    Raises:
        UserError: OpenCV cannot read it.
    """
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise UserError(
                f"video {path}: cannot be opened; expected a video that OpenCV reads, such as .mp4; convert it, for "
                "instance with ffmpeg"
            )
        fps = capture.get(cv2.CAP_PROP_FPS)
        length = int(max(0.0, capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        yield Video(path, fps if 0 < fps < 1000 else 25.0, length, capture)
    finally:
        capture.release()

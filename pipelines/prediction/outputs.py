"""What a prediction leaves in its folder: predictions.json, pictures, videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError
from tcformer.files import atomic_write

PREDICTIONS: Final = "predictions.json"
_QUALITY: Final = 92  # of JPEGs


class OutputFolder:
    """The folder of the results; it is created with the first file.

    Args:
        folder: the folder.
        inputs: files that must not be overwritten.

    Raises:
        UserError: a file has the name of the folder.
    """

    def __init__(self, folder: Path, inputs: list[Path]) -> None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; expected a folder for the results; give another name with --out")
        self.folder = folder
        self._taken = {path.resolve() for path in inputs}

    def free(self, stem: str, suffix: str) -> Path:
        """A name that no input and no other output has: two pictures can have the same name in different folders."""
        number = 1
        while (path := self.folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}").resolve() in self._taken:
            number += 1
        self._taken.add(path.resolve())
        return path

    def write_picture(self, stem: str, picture: NDArray[np.uint8], suffix: str = ".jpg") -> None:
        """Write a picture (H, W, 3) uint8 RGB as JPEG or PNG."""
        import cv2

        path = self.free(stem, suffix)
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 6]
        good, data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options)
        if not good:
            raise UserError(f"{path}: the picture cannot be encoded; choose fewer boxes")
        self._write(path, data.tobytes())

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Write predictions.json, one record a line."""
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        self._write(self.folder / PREDICTIONS, f"[\n{lines}\n]\n".encode())

    def _write(self, path: Path, data: bytes) -> None:
        try:
            with atomic_write(path) as part:
                part.write_bytes(data)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); give another folder with --out") from error


class VideoFile:
    """A video that is written frame by frame; all frames get the size of the first one.

    Args:
        path: an .mp4 file.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._fps = fps
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame (H, W, 3) uint8 RGB.

        Raises:
            UserError: the file cannot be written.
        """
        import cv2

        if self._writer is None:
            height, width = frame.shape[:2]
            self._size = (width - width % 2 or 2, height - height % 2 or 2)  # encoders need even sides
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self._fps, self._size)
            if not self._writer.isOpened():
                raise UserError(f"{self.path}: the video cannot be written; give another folder with --out")
        if frame.shape[1::-1] != self._size:
            frame = np.asarray(cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

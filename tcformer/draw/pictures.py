"""Pictures: checked, enlarged, and written as PNG files whose bytes depend on the pixels only."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def check_picture(picture: NDArray[np.uint8]) -> None:
    """Check that an array is a picture.

    Raises:
        ValueError: if it is not a non-empty (H, W, 3) uint8 array.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ValueError(
            f"the picture has dtype {picture.dtype} and shape {picture.shape}; expected uint8 and (H, W, 3) RGB"
        )


def enlarge(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) as (H * scale, W * scale, 3), by cubic interpolation.

    Raises:
        ValueError: if it is no picture, or the scale is below 1.
    """
    check_picture(picture)
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected a whole number of at least 1")
    if scale == 1:
        return picture.copy()
    height, width = picture.shape[:2]
    large = cv2.resize(picture, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, dtype=np.uint8)


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) as PNG: fixed compression, no metadata, no time stamp.

    Raises:
        ValueError: if it is no picture, or OpenCV cannot encode it.
    """
    check_picture(picture)
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not encoded:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape} as PNG")
    return data.tobytes()


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) as a PNG file; its folder is created if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(picture))

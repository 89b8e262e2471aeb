"""Pictures as PNG bytes that depend on nothing but their pixels."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.draw.grid import check_picture


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) uint8 RGB picture: fixed compression, no metadata, no time stamp."""
    check_picture(picture)
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"OpenCV could not encode a picture of shape {picture.shape} as PNG")
    return data.tobytes()


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 RGB picture as a PNG file, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(picture))

"""What both writers of data sets need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map` or a parallel equivalent."""


def write_jpeg(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    """Write a picture (height, width, 3), RGB, as JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise UserError(f"cannot encode {path}: expected jpeg_quality between 1 and 100, found {quality}")
    path.write_bytes(data.tobytes())

"""What the writers of generated datasets share: the type of their argument `map`, and JPEG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Map(Protocol):
    """`map`, or a parallel function that is called like it.

    The function and the items can be pickled. The results may come in any order: neither the order nor the number of
    processes changes a byte of a dataset.
    """

    def __call__(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterable[_Result]:
        """The function's result for every item."""
        ...


def write_jpeg(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    """Write an image (height, width, 3), RGB, as a JPEG file.

    Raises:
        UserError: OpenCV cannot encode the image.
    """
    encoded, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise UserError(f"cannot encode {path}: expected jpeg_quality between 1 and 100, found {quality}")
    path.write_bytes(data.tobytes())

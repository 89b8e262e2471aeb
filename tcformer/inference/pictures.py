"""Pictures to predict: read from files as large as needed, and cut into crops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.crops import crop_matrix, cut_crop
from tcformer.data.images import MOST_PIXELS, ReducedImage, read_image, read_reduced, without_pillow_limit

#: Crops scaled down by more than this are averaged first: bilinear interpolation would skip pixels. Crops of COCO's
#: pictures are smaller, so they are the same as in evaluations.
_MOST_SKIPPED: Final = 5.0
#: What remains for the bilinear interpolation.
_REMAINING: Final = 2.5

# How the stored pixels become upright, by the value of the EXIF tag.
_EXIF_TAG: Final = 274
_TURNS: Final[dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


def as_picture(pixels: NDArray[np.uint8]) -> ReducedImage:
    """Pixels (H, W, 3) uint8 RGB at full size.

    Raises:
        ValueError: they have another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"the image has dtype {pixels.dtype} and shape {pixels.shape}; expected uint8 and (H, W, 3)")
    return ReducedImage(pixels, 1, (pixels.shape[0], pixels.shape[1]))


def read_picture(
    path: Path | str, ratio: Callable[[tuple[int, int]], float] = lambda size: 1.0, upright: bool = True
) -> ReducedImage:
    """Read a picture; a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is large enough.

    Args:
        path: the file.
        ratio: from its (height, width) to the number by which it will be scaled down.
        upright: turn the pixels as the EXIF tag of a camera says. COCO's boxes need the stored pixels.

    Raises:
        ImageError: the file cannot be read or is not an image.
    """
    size, turn = _header(path)
    if upright and turn in _TURNS:
        return as_picture(np.ascontiguousarray(_TURNS[turn](read_image(path))))
    # Without a readable header, `read_image` says what is wrong.
    return read_reduced(path, ratio(size) if size else 1.0)


def _header(path: Path | str) -> tuple[tuple[int, int] | None, int]:
    """(height, width) and the EXIF orientation of an image file; None and 1 if they cannot be read."""
    from PIL import Image

    try:
        with without_pillow_limit(), Image.open(path) as image:
            if image.height * image.width > MOST_PIXELS:  # Pillow decodes a PNG to find its tag
                return None, 1
            return (image.height, image.width), int(image.getexif().get(_EXIF_TAG, 1))
    except Exception:  # Pillow's readers raise many types for broken files
        return None, 1


def cut(
    picture: ReducedImage, centre: NDArray[np.float64], extent: NDArray[np.float64], input_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut a crop out of a picture and scale it to the network's input, black outside of the picture.

    Args:
        picture: the picture.
        centre: (2,) x, y of the crop's centre, pixels of the file.
        extent: (2,) width, height of the crop, pixels of the file.
        input_size: (height, width) of the network's input.
    """
    import cv2

    # Only the part around the crop, because OpenCV maps at most 32767 pixels along an axis.
    low = np.floor((centre - 0.5 * extent) / picture.factor).astype(int) - 2
    high = np.ceil((centre + 0.5 * extent) / picture.factor).astype(int) + 3
    height, width = picture.pixels.shape[:2]
    left, top = (int(np.clip(v, 0, end - 1)) for v, end in zip(low, (width, height)))
    right, bottom = (int(np.clip(v, start + 1, end)) for v, start, end in zip(high, (left, top), (width, height)))
    part = picture.pixels[top:bottom, left:right]
    to_full = picture.to_full() @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    ratio = float(extent[0]) / input_size[1] / picture.factor
    if ratio > _MOST_SKIPPED:
        factor = 2 ** math.ceil(math.log2(ratio / _REMAINING))
        rows, columns = -part.shape[0] % factor, -part.shape[1] % factor
        # Repeated pixels, so that all blocks are whole. The crop stays black outside of the picture, up to one block.
        part = cv2.copyMakeBorder(part, 0, rows, 0, columns, cv2.BORDER_REPLICATE)
        size = (part.shape[1] // factor, part.shape[0] // factor)
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        shift = (factor - 1) / 2
        to_full = to_full @ np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]], np.float64)
    return cut_crop(part, crop_matrix(centre, extent, 0.0, input_size) @ to_full, input_size)

"""Image files to RGB arrays: what the data sets hold, as one array type, or one clear error.

JPEG goes through simplejpeg (libjpeg-turbo); grayscale, CMYK, PNG named .JPEG and whatever else through
Pillow. Both give the same pixels for a colour JPEG. EXIF orientation is not applied: the annotations of COCO
and the published ImageNet results refer to the stored pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError

#: Mean and standard deviation of ImageNet, RGB, for values in [0, 1].
IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)

_SCALE = (1.0 / (255.0 * np.array(IMAGE_STD))).astype(np.float32)
_OFFSET = (-np.array(IMAGE_MEAN) / np.array(IMAGE_STD)).astype(np.float32)


class ImageError(UserError):
    """An image file that is missing or cannot be decoded."""


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read, is truncated or is no image; the message names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"image {path}: cannot be read ({error.strerror}); put the file back") from error
    return decode_image(data, path)


def decode_image(data: bytes, name: Path | str) -> NDArray[np.uint8]:
    """Decode an encoded image to (H, W, 3) uint8 RGB; `name` is used in the error message only."""
    if data[:2] == b"\xff\xd8":
        import simplejpeg

        try:
            colorspace = simplejpeg.decode_jpeg_header(data)[2]
            if colorspace not in ("CMYK", "YCCK"):
                return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            pass  # a flaw that Pillow reads through (stray bytes), or one that it will refuse as well
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"image {name}: cannot be decoded ({error}); expected a whole JPEG or PNG; fetch the file again"
        ) from error


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32, ImageNet mean 0 and standard deviation 1."""
    out = np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.multiply(image[:, :, channel], _SCALE[channel], out=out[channel])
        out[channel] += _OFFSET[channel]
    return out


def denormalise(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The inverse of `normalise`, rounded and clipped to uint8; for pictures."""
    values = (image - _OFFSET[:, None, None]) / _SCALE[:, None, None]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)

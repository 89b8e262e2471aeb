"""Image files to RGB arrays: what the data sets hold, as one array type, or one clear error.

JPEG goes through simplejpeg (libjpeg-turbo); CMYK, PNG named .JPEG and whatever else through Pillow. Both give the
same pixels for a colour JPEG. Of 16 bits a channel the upper 8 are taken, of an animation the first frame, and an alpha
channel is dropped. EXIF orientation is not applied: the annotations of COCO and the published ImageNet results refer to
the stored pixels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError, listed

#: Mean and standard deviation of ImageNet, RGB, for values in [0, 1].
IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)

_SCALE = (1.0 / (255.0 * np.array(IMAGE_STD))).astype(np.float32)
_OFFSET = (-np.array(IMAGE_MEAN) / np.array(IMAGE_STD)).astype(np.float32)


_JPEG = b"\xff\xd8"
_NOT_RGB = ("CMYK", "YCCK")

# Pillow converts these to RGB as their names say; what number of an "I" or "F" is white, it cannot know.
_MODES: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


class ImageError(UserError):
    """An image file that is missing or cannot be decoded."""


class BrokenImage(ImageError):
    """An image file that is there and cannot be decoded: the same bytes give the same error, wherever they are read.

    Args:
        message: for people.
        path: the file. The default is what a copy through a pipe is made with before it gets its attributes.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read; the message names it.
        BrokenImage: it is truncated or no image; likewise.
    """
    return decode_image(_bytes_of(path), path)


def _bytes_of(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"image {path}: cannot be read ({error.strerror}); put the file back") from error


@dataclass(frozen=True)
class ReducedImage:
    """An image that may be smaller than its file says."""

    #: (h, w, 3) uint8 RGB
    pixels: NDArray[np.uint8]
    #: 1, 2, 4 or 8 pixels of the file along each axis are one of `pixels`
    factor: int
    #: height, width of the file's image
    size: tuple[int, int]

    def to_full(self) -> NDArray[np.float64]:
        """(3, 3), places in `pixels` to places in the file's image; pixel centres lie on whole numbers in both."""
        shift = (self.factor - 1) / 2
        return np.array([[self.factor, 0, shift], [0, self.factor, shift], [0, 0, 1]], np.float64)


def read_reduced(path: Path | str, ratio: float) -> ReducedImage:
    """Read an image of which a part is to be shrunk by `ratio`: a JPEG at 1/2, 1/4 or 1/8 if that is still enough.

    libjpeg then computes fewer pixels, each from the frequencies that fit into it: near to the mean of those it stands
    for. Other kinds of files are read whole.

    Raises:
        ImageError, BrokenImage: see `read_image`.
    """
    data = _bytes_of(path)
    factor = next((f for f in (8, 4, 2) if f <= ratio), 1)
    if factor > 1 and data[:2] == _JPEG:
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace not in _NOT_RGB:
                least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
                return ReducedImage(simplejpeg.decode_jpeg(data, "RGB", **least), factor, (height, width))
        except ValueError:
            pass  # as in `decode_image`
    pixels = decode_image(data, path)
    return ReducedImage(pixels, 1, (pixels.shape[0], pixels.shape[1]))


def decode_image(data: bytes, name: Path | str) -> NDArray[np.uint8]:
    """Decode an encoded image to (H, W, 3) uint8 RGB; `name` is used for the error only.

    Raises:
        BrokenImage: the data are truncated or no image.
    """
    if data[:2] == _JPEG:
        import simplejpeg

        try:
            colorspace = simplejpeg.decode_jpeg_header(data)[2]
            if colorspace not in _NOT_RGB:
                return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            pass  # a flaw that Pillow reads through (stray bytes), or one that it will refuse as well
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I;16"):  # Pillow would take all above 255 for white
                gray = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, 2)
            if image.mode not in _MODES:
                raise ValueError(f"pixels of kind {image.mode}")
            return np.array(image.convert("RGB"))
    except MemoryError:
        raise  # this machine's fault, not the file's
    except Exception as error:  # Pillow's readers raise many kinds for broken files
        raise BrokenImage(
            f"image {name}: cannot be decoded ({error}); expected a whole JPEG or PNG; fetch the file again", str(name)
        ) from error


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Which of the files `names`, relative to `folder`, are not there: sorted, each once.

    Each folder is listed once, which for the data sets' hundred thousands of files is quicker than asking for each.
    """
    present: dict[str, set[str]] = {}
    missing = []
    for name in sorted(set(names)):
        parent, _, base = name.rpartition("/")
        if parent not in present:
            present[parent] = _listed(folder / parent)
        if base not in present[parent]:
            missing.append(name)
    return missing


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def check_images(
    folder: Path, names: Iterable[str], images: str = "annotated images", place: Callable[[str], str] | None = None
) -> None:
    """Raise UserError if images of a dataset are missing; the message names the first ten and gives their number.

    Args:
        folder: the image folder.
        names: the images that the annotations name, relative to `folder`; a name may stand more than once.
        images: what they are, for the message.
        place: where an image is named in the annotations, for the message.
    """
    wanted = set(names)
    missing = missing_files(folder, wanted)
    if missing:
        shown = [f"{name} ({place(name)})" if place else name for name in missing]
        raise UserError(
            f"{folder}: {len(missing)} of {len(wanted)} {images} are missing: {listed(shown)}; "
            f"unpack the image archive there or run the prepare stage"
        )


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32, ImageNet mean 0 and standard deviation 1."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))  # bytes are quicker to move than floats to gather
    out = np.empty(planes.shape, np.float32)
    for channel in range(3):
        np.multiply(planes[channel], _SCALE[channel], out=out[channel])
        out[channel] += _OFFSET[channel]
    return out


def denormalise(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The inverse of `normalise`, rounded and clipped to uint8; for pictures."""
    values = (image - _OFFSET[:, None, None]) / _SCALE[:, None, None]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)

"""Read image files as RGB arrays.

simplejpeg (libjpeg-turbo) decodes RGB and grey JPEGs; Pillow decodes all other files, such as CMYK JPEGs and PNGs named
.JPEG. Both give the same pixels for a colour JPEG. Of 16 bits a channel the upper 8 are kept, of an animation the first
frame is used, and an alpha channel is dropped. EXIF orientation is not applied: the annotations of COCO and the
published ImageNet results refer to the stored pixels.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
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


#: Pixels of the largest image that is decoded, which takes 1.6 GB. A few bytes can say that an image has more.
MOST_PIXELS: Final = 1 << 29

_JPEG = b"\xff\xd8"
_NOT_RGB = ("CMYK", "YCCK")

# Pillow converts these modes to RGB. It does not convert "I" and "F" correctly, because their white is not known.
_MODES: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


class ImageError(UserError):
    """An image file that does not exist, cannot be read or cannot be decoded."""


class BrokenImage(ImageError):
    """An image file that can be read but not decoded. The same bytes give the same error on every machine.

    Args:
        message: for the user.
        path: the file. Unpickling creates the exception with the default and sets the attribute afterwards.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read.
        BrokenImage: the file is truncated or is not an image.
    """
    return decode_image(_bytes_of(path), path)


def _bytes_of(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"image {path}: cannot be read ({error.strerror}); put the file back") from error


@dataclass(frozen=True)
class ReducedImage:
    """An image that may have been decoded at a fraction of its size.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        factor: 1, 2, 4 or 8: how many pixels of the file along each axis are one pixel here.
        size: height, width of the image in the file.
    """

    pixels: NDArray[np.uint8]
    factor: int
    size: tuple[int, int]

    def to_full(self) -> NDArray[np.float64]:
        """The map (3, 3) from coordinates in `pixels` to the file's; pixel centres are integers in both."""
        shift = (self.factor - 1) / 2
        return np.array([[self.factor, 0, shift], [0, self.factor, shift], [0, 0, 1]], np.float64)


def read_reduced(path: Path | str, ratio: float) -> ReducedImage:
    """Read an image that will be scaled down by `ratio`: a JPEG is decoded at 1/2, 1/4 or 1/8 if that is large enough.

    libjpeg then computes fewer pixels from the lower frequencies. Each is close to the mean of the pixels that it
    replaces. Other formats are decoded at full size.

    Raises:
        ImageError, BrokenImage: see `read_image`.
    """
    data = _bytes_of(path)
    factor = next((f for f in (8, 4, 2) if f <= ratio), 1)
    if factor > 1 and data[:2] == _JPEG:
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace not in _NOT_RGB and height * width <= MOST_PIXELS:
                least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
                return ReducedImage(simplejpeg.decode_jpeg(data, "RGB", **least), factor, (height, width))
        except ValueError:
            pass  # see `decode_image`
    pixels = decode_image(data, path)
    return ReducedImage(pixels, 1, (pixels.shape[0], pixels.shape[1]))


def decode_image(data: bytes, name: Path | str) -> NDArray[np.uint8]:
    """Decode an encoded image to (H, W, 3) uint8 RGB. `name` is used only in error messages.

    Raises:
        BrokenImage: the data are truncated or are not an image.
    """
    if data[:2] == _JPEG:
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace not in _NOT_RGB and height * width <= MOST_PIXELS:
                return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            pass  # Pillow tolerates some faults, such as stray bytes, and raises an error for the others
    from PIL import Image

    try:
        with without_pillow_limit():
            opened = Image.open(io.BytesIO(data))
        pixels = opened.width * opened.height
        if pixels > MOST_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than {MOST_PIXELS}")
        is_large = pixels > (Image.MAX_IMAGE_PIXELS or MOST_PIXELS)  # some readers check it a second time
        with opened as image, without_pillow_limit() if is_large else nullcontext():
            if image.mode.startswith("I;16"):  # Pillow would clip values above 255
                gray = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, 2)
            if image.mode not in _MODES:
                raise ValueError(f"pixels of the mode {image.mode}")
            return np.array(image.convert("RGB"))
    except MemoryError:
        raise  # the machine lacks memory; the file may be good
    except Exception as error:  # Pillow's readers raise many types for broken files
        raise BrokenImage(
            f"image {name}: cannot be decoded ({error}); expected a complete JPEG or PNG; download the file again",
            str(name),
        ) from error


_pillow_lock = threading.Lock()


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Let Pillow read images of more pixels than its own limit, which is meant for images from strangers."""
    from PIL import Image

    with _pillow_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_size(size: tuple[int, int], expected: tuple[int, int], path: Path) -> None:
    """Raise UserError if an image has not the size that its annotation says: the annotated positions are not its.

    Args:
        size: width and height of the image.
        expected: width and height in the annotation.
        path: of the image, for the message.
    """
    if size == expected:
        return
    turned = size[::-1] == expected
    hint = (
        "perhaps it was annotated in a viewer that turns it as its EXIF tag says; turn its pixels and remove the tag"
        if turned
        else "it was scaled, cropped or padded after it was annotated; use the original image"
    )
    raise UserError(
        f"image {path}: {size[0]} x {size[1]} pixels: expected {expected[0]} x {expected[1]}, as its annotation says; "
        f"{hint}, or correct the annotations"
    )


def is_image_name(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file is an image, by its name. macOS writes attributes of files to ._name beside them."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Find the files `names`, relative to `folder`, that do not exist: sorted, each once.

    Each folder is listed once, which is faster for a hundred thousand files than checking each of them.
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
    """Raise UserError if images of a dataset are missing. The message gives their number and names the first ten.

    Args:
        folder: the image folder.
        names: the images that the annotations name, relative to `folder`. A name may occur more than once.
        images: what to call them in the message.
        place: where the annotations name an image, for the message.
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
    """Normalise (H, W, 3) uint8 RGB to (3, H, W) float32 by the mean and standard deviation of ImageNet."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))  # transposing bytes is faster than transposing floats
    out = np.empty(planes.shape, np.float32)
    for channel in range(3):
        np.multiply(planes[channel], _SCALE[channel], out=out[channel])
        out[channel] += _OFFSET[channel]
    return out


def denormalise(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The inverse of `normalise`, rounded and clipped to uint8, for drawing."""
    values = (image - _OFFSET[:, None, None]) / _SCALE[:, None, None]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)

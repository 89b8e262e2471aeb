"""Top-down crops: from a box to a centre and an extent, and from these to an affine map from image to crop.

The convention is that of mmpose 0.x and HRNet (not UDP): pixel centres have integer coordinates, the centre of the crop
is mapped to (width / 2, height / 2) of the network's input, and both axes have the same scale, the input's width over
the crop's width. `crop_matrix` (for training and test) and `to_image` (for results) are inverses of each other. What
mmpose stores as "scale" is the extent divided by `SCALE_UNIT`.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Pixels in one unit of the "scale" that mmpose and SPIN store for a box.
SCALE_UNIT: Final = 200.0

# Fixed point: sums are in 1/1024 pixel, positions in 1/32, the unit of OpenCV's tables.
_FRACTION_BITS: Final = 5
_ONE: Final = 1024
_STEP: Final = _ONE >> _FRACTION_BITS
_HALF_STEP: Final = _STEP // 2


def centre_and_extent(
    boxes: ArrayLike, input_size: tuple[int, int], padding: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the centres and extents of the crops around boxes.

    Args:
        boxes: (..., 4) x, y, width, height in image pixels.
        input_size: (height, width) of the network's input, for the aspect ratio.
        padding: factor by which the crop is larger than the box, after the box was widened to the aspect ratio.

    Returns:
        Centres (..., 2) x, y and extents (..., 2) width, height in image pixels.
    """
    box = np.asarray(boxes, np.float64)
    centre = box[..., :2] + 0.5 * box[..., 2:]
    return centre, padding * fit_aspect(box[..., 2:], input_size)


def fit_aspect(extent: NDArray[np.float64], input_size: tuple[int, int]) -> NDArray[np.float64]:
    """Enlarge one side of (..., 2) width, height to the aspect ratio of `input_size` (height, width)."""
    aspect = input_size[1] / input_size[0]
    width = np.maximum(extent[..., 0], extent[..., 1] * aspect)
    return np.stack([width, width / aspect], -1)


def crop_matrix(
    centre: ArrayLike,
    extent: ArrayLike,
    rotation: float,
    input_size: tuple[int, int],
    flip_width: int | None = None,
) -> NDArray[np.float64]:
    """The affine map (2, 3) from image pixels to pixels of the network's input.

    Args:
        centre: x, y of the crop's centre in pixels of the image, or of the mirrored image with `flip_width`.
        extent: width, height of the crop in image pixels. Only the width is used; the aspect ratio is the network's.
        rotation: degrees. The content turns anticlockwise on the screen for positive values.
        input_size: (height, width) of the network's input.
        flip_width: width of the image, if it is mirrored first; else None.
    """
    x, y = np.asarray(centre, np.float64)
    height, width = input_size
    scale = width / float(np.asarray(extent)[0])
    cosine = scale * math.cos(math.radians(rotation))
    sine = scale * math.sin(math.radians(rotation))
    matrix = np.array(
        [
            [cosine, sine, 0.5 * width - cosine * x - sine * y],
            [-sine, cosine, 0.5 * height + sine * x - cosine * y],
        ]
    )
    if flip_width is not None:
        matrix[:, 2] += matrix[:, 0] * (flip_width - 1)
        matrix[:, 0] *= -1
    return matrix


def cut_crop(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a crop out of an image, with bilinear interpolation; black outside the image.

    All arithmetic on pixels is in integers, so a crop is the same bytes on every CPU. (OpenCV's `warpAffine` chooses
    its arithmetic by the CPU.) Positions are rounded to 1/32 pixel, as OpenCV's are.

    Args:
        image: (H, W, 3).
        matrix: (2, 3) from pixels of the image to those of the crop, see `crop_matrix`.
        size: (height, width) of the crop.
    """
    import cv2

    (a, b, c), (d, e, f) = np.asarray(matrix, np.float64).tolist()
    scale = _ONE / (a * e - b * d)
    x, y = np.arange(size[1]), np.arange(size[0])[:, None]
    pixel, fraction = np.empty((*size, 2), np.int16), np.empty((2, *size), np.uint16)
    for axis, (of_x, of_y, shift) in enumerate(((e, -b, b * f - c * e), (-d, a, c * d - a * f))):
        in_x, in_y = (np.rint(v * scale).astype(np.int64) for v in (of_x * x, of_y * y + shift))
        position = np.clip((in_x + in_y + _HALF_STEP) // _STEP, -(1 << 20), (1 << 20) - 1)
        pixel[..., axis] = position >> _FRACTION_BITS
        fraction[axis] = position & ((1 << _FRACTION_BITS) - 1)
    table = (fraction[1] << _FRACTION_BITS) | fraction[0]
    return np.asarray(cv2.remap(image, pixel, table, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)


def transform_points(points: NDArray, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a (2, 3) affine map to points (..., 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def to_image(points: NDArray, centre: NDArray, extent: NDArray, input_size: tuple[int, int]) -> NDArray[np.float64]:
    """Map points on the network's input back to image pixels. Crops must not be rotated or flipped.

    Args:
        points: (B, K, 2) x, y in pixels of the network's input.
        centre: (B, 2) centres of the crops in image pixels.
        extent: (B, 2) width, height of the crops in image pixels.
        input_size: (height, width) of the network's input.
    """
    size = np.array([input_size[1], input_size[0]], np.float64)
    extent = np.asarray(extent, np.float64)[:, None]
    return points * (extent / size) + np.asarray(centre, np.float64)[:, None] - 0.5 * extent

"""Token regions and token sizes as pictures (Figures 1, 5, 7 and A5 of the TCFormer paper)."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.draw.grid import at_pixels, cell_labels, check_picture
from tcformer.draw.text import QUIET_INK, text_width, write

# A line is its region's own colour taken this far towards black, or towards white in dark regions: one colour
# for all lines disappears either in snow or in black clothes.
_LINE_STRENGTH = 0.55
_DARK_BELOW = 75


def enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 picture as (H * scale, W * scale, 3), smooth (cubic)."""
    check_picture(image)
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected a whole number of at least 1")
    if scale == 1:
        return image.copy()
    height, width = image.shape[:2]
    large = cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, dtype=np.uint8)


def tokens(
    image: NDArray[np.uint8],
    token_of_cell: ArrayLike,
    grid_size: tuple[int, int],
    *,
    scale: int = 4,
    border: int = 1,
) -> NDArray[np.uint8]:
    """Every token's region in its mean colour, with a line wherever neighbouring cells differ.

    Args:
        image: (H, W, 3) uint8 RGB, what the network saw.
        token_of_cell: (N_init,) the token of each grid cell, row-major; regions may be disconnected.
        grid_size: rows and columns of the grid.
        scale: whole factor by which the picture is larger than the image.
        border: width of the lines in pixels of the result: 0, 1 or 2.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.
    """
    check_picture(image)
    if border not in (0, 1, 2):
        raise ValueError(f"border is {border}; expected 0, 1 or 2 pixels")
    height, width = image.shape[:2]
    cells = cell_labels(token_of_cell, grid_size)
    token = at_pixels(cells, height, width).ravel()
    pixels = np.bincount(token, minlength=cells.max() + 1)
    sums = np.stack([np.bincount(token, image[..., c].ravel(), len(pixels)) for c in range(3)], axis=1)
    colour = np.rint(sums / np.maximum(pixels, 1)[:, None]).astype(np.uint8)
    large = at_pixels(cells, height * scale, width * scale)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    towards = np.where(luma[:, None] < _DARK_BELOW, 255, 0)
    line = np.rint(colour + _LINE_STRENGTH * (towards - colour.astype(float))).astype(np.uint8)
    return np.where(_edges(large, border)[..., None], line[large], colour[large])


def token_sizes(
    token_of_cell: ArrayLike,
    grid_size: tuple[int, int],
    image_size: tuple[int, int],
    *,
    scale: int = 4,
    largest: int | None = None,
) -> NDArray[np.uint8]:
    """Heat map of log2(cells of the token) at every pixel: fine tokens bright, coarse ones dark.

    Args:
        token_of_cell: (N_init,) the token of each grid cell, row-major.
        grid_size: rows and columns of the grid.
        image_size: height and width of the image in pixels.
        scale: whole factor by which the picture is larger than the image.
        largest: cells per token at the dark end; the largest token by default. Give pictures to be compared
            the same value and draw `size_legend` with it.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.
    """
    cells = cell_labels(token_of_cell, grid_size)
    size = np.bincount(cells.ravel())
    end = int(size.max()) if largest is None else largest
    colour = _size_colours(size, end)
    return colour[at_pixels(cells, image_size[0] * scale, image_size[1] * scale)]


def size_legend(largest: int, width: int, *, text_size: int = 12) -> NDArray[np.uint8]:
    """The colour bar of `token_sizes`, from 1 to `largest` cells per token.

    Returns:
        (3 * text_size, width, 3) uint8 RGB.
    """
    margin, top, bottom = text_size, text_size // 4, text_size
    legend = np.full((3 * text_size, width, 3), 255, np.uint8)
    bar = np.arange(width - 2 * margin)
    # The bar starts at 1 cell per token and is even in log2, as the picture is.
    legend[top:bottom, margin : width - margin] = _size_colours(
        np.exp2(bar / max(len(bar) - 1, 1) * np.log2(max(largest, 2))), largest
    )
    steps = int(np.log2(max(largest, 2)))
    # As many labels as fit: every power of two, or every second, third, ... one.
    room = text_width("0", size=text_size) * (len(str(2**steps)) + 1)
    stride = max(1, -(-room * steps // max(len(bar), 1)))
    for power in range(0, steps + 1, stride):
        x = margin + round((len(bar) - 1) * power / np.log2(max(largest, 2)))
        legend[bottom : bottom + text_size // 4, x] = QUIET_INK
        write(legend, str(2**power), (x, bottom + 3 * text_size // 2), size=text_size, anchor="middle")
    return legend


def _edges(labels: NDArray[np.int64], border: int) -> NDArray[np.bool_]:
    """Pixels of (H, W) labels on a line between regions: on its upper or left side, with 2 on both sides."""
    edges = np.zeros(labels.shape, dtype=bool)
    if border == 0:
        return edges
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edges[:, :-1] |= across
    edges[:-1] |= down
    if border == 2:
        edges[:, 1:] |= across
        edges[1:] |= down
    return edges


def _size_colours(size: NDArray[np.generic], largest: int) -> NDArray[np.uint8]:
    """(n,) cells per token -> (n, 3) RGB: viridis over log2, its bright end at 1 cell."""
    fine = 1 - np.log2(size) / np.log2(max(largest, 2))
    level = np.rint(255 * np.clip(fine, 0, 1)).astype(np.uint8)
    bgr = cv2.applyColorMap(level[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(bgr[:, 0, ::-1])

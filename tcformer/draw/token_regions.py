"""Token regions and token sizes as pictures (figures 1, 5, 7 and A5 of the TCFormer paper)."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.draw.pictures import check_picture
from tcformer.draw.text import GREY, text_width, write_text
from tcformer.draw.token_grid import at_pixels, cell_labels

# The colour of a line is the colour of its region, moved this far towards black, or towards white in dark regions: a
# line of one colour would be invisible on snow or on black clothes.
_LINE_STRENGTH = 0.55
_DARK_BELOW = 75  # brightness, 0 to 255


def tokens(
    image: NDArray[np.uint8],
    token_of_cell: ArrayLike,
    grid_size: tuple[int, int],
    *,
    scale: int = 4,
    border: int = 1,
) -> NDArray[np.uint8]:
    """Draw the region of each token in its mean colour, with lines between cells of different tokens.

    Args:
        image: (H, W, 3) uint8 RGB, the input of the network.
        token_of_cell: (N_init,) the token of each grid cell, row-major; regions may be disconnected.
        grid_size: rows and columns of the grid.
        scale: integer factor by which the picture is larger than the image.
        border: width of the lines, pixels of the result: 0, 1 or 2.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if the image is no picture, `token_of_cell` does not fit the grid, or the border is not 0, 1 or 2.
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
    """Draw log2(cells of the token) at each pixel: fine tokens are bright, coarse tokens dark.

    Args:
        token_of_cell: (N_init,) the token of each grid cell, row-major.
        grid_size: rows and columns of the grid.
        image_size: height and width of the image, pixels.
        scale: integer factor by which the picture is larger than the image.
        largest: cells per token at the dark end of the colours; by default those of the largest token. Pictures that
            are compared need the same value, and `size_legend` too.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.

    Raises:
        ValueError: if `token_of_cell` does not fit the grid.
    """
    cells = cell_labels(token_of_cell, grid_size)
    size = np.bincount(cells.ravel())
    end = int(size.max()) if largest is None else largest
    colour = _size_colours(size, end)
    return colour[at_pixels(cells, image_size[0] * scale, image_size[1] * scale)]


def size_legend(largest: int, width: int, *, text_size: int = 12) -> NDArray[np.uint8]:
    """The colour bar of `token_sizes`.

    Args:
        largest: cells per token at its dark end; the bright end is 1.
        width: of the legend, pixels.
        text_size: font size, pixels.

    Returns:
        (3 * text_size, width, 3) uint8 RGB.
    """
    margin, top, bottom = text_size, text_size // 4, text_size
    legend = np.full((3 * text_size, width, 3), 255, np.uint8)
    bar = np.arange(width - 2 * margin)
    # Like the colours of the picture, the bar is linear in log2.
    legend[top:bottom, margin : width - margin] = _size_colours(
        np.exp2(bar / max(len(bar) - 1, 1) * np.log2(max(largest, 2))), largest
    )
    steps = int(np.log2(max(largest, 2)))
    # As many labels as fit: each power of two, or each second, third, ... of them.
    room = text_width("0", size=text_size) * (len(str(2**steps)) + 1)
    stride = max(1, -(-room * steps // max(len(bar), 1)))
    for power in range(0, steps + 1, stride):
        x = margin + round((len(bar) - 1) * power / np.log2(max(largest, 2)))
        legend[bottom : bottom + text_size // 4, x] = GREY
        write_text(legend, str(2**power), (x, bottom + 3 * text_size // 2), size=text_size, anchor="middle")
    return legend


def _edges(labels: NDArray[np.int64], border: int) -> NDArray[np.bool_]:
    """Pixels of labels (H, W) at the border between regions: at its upper or left side, with 2 at both sides."""
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
    """Colours (n, 3), RGB, of cells per token (n,): viridis over log2, bright for 1 cell."""
    fine = 1 - np.log2(size) / np.log2(max(largest, 2))
    level = np.rint(255 * np.clip(fine, 0, 1)).astype(np.uint8)
    bgr = cv2.applyColorMap(level[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(bgr[:, 0, ::-1])

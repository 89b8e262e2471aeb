"""Where the pixels of a heat map are on the network's input.

Pixel centres have integer coordinates on both. Mirroring maps x to length - 1 - x on both, so a grid is symmetric if it
maps the middle of the input, (length - 1) / 2, to the middle of the heat map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tcformer.errors import UserError

#: Input pixels in a heat-map pixel, along each axis.
STRIDE = 4
#: From the lengths of the input and of the heat map in pixels along one axis to `scale` and `offset` of the map
#: x -> scale * x + offset from input to heat-map coordinates.
Grid: TypeAlias = Callable[[int, int], tuple[float, float]]


def same_origin(input_length: int, map_length: int) -> tuple[float, float]:
    """Heat-map pixel i is at input pixel i * stride, as in HRNet and mmpose 0.x. Not symmetric."""
    return map_length / input_length, 0.0


def same_ends(input_length: int, map_length: int) -> tuple[float, float]:
    """The first pixels coincide, and the last: the unit of length of UDP (Huang et al., CVPR 2020). Symmetric."""
    return (map_length - 1) / (input_length - 1), 0.0


def same_area(input_length: int, map_length: int) -> tuple[float, float]:
    """Each heat-map pixel is at the centre of the input pixels that it covers. Symmetric."""
    scale = map_length / input_length
    return scale, 0.5 * scale - 0.5


def check_input_size(input_size: tuple[int, int]) -> None:
    """Raise UserError unless heat maps of a quarter of (height, width) pixels are possible."""
    height, width = input_size
    if height < 32 or width < 32 or height % STRIDE or width % STRIDE:
        raise UserError(f"input_size {height} x {width}: expected multiples of {STRIDE} of at least 32")

"""Codecs: how keypoints become heat maps, and heat maps keypoints.

Only a codec knows how pixels of heat maps and of the network's input correspond: outside this package, all points are
in pixels of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcformer.heatmaps.decode import decode_heat_maps
from tcformer.heatmaps.encode import gaussian_heat_maps
from tcformer.heatmaps.flip import flip_test
from tcformer.heatmaps.grid import STRIDE, Grid, check_input_size, same_area, same_ends, same_origin
from tcformer.heatmaps.names import CodecName, Decoding, Refinement


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Encodes, decodes and flips the heat maps of a task.

    Attributes:
        input_size: (height, width) of the network's input.
        sigma: standard deviation of the target Gaussians in heat-map pixels.
        grid: where the heat map's pixels are on the input.
        rounded: draw the Gaussian around the pixel nearest to the point, up to 3 sigma; else around the point itself.
        refinement: where between the pixels the maximum of a heat map is, one of `decode.REFINEMENTS`.
        flip_shift: heat-map pixels by which the flip test shifts the maps of mirrored images to the right.

    Raises:
        UserError: heat maps of a quarter of the input size are not possible.
    """

    input_size: tuple[int, int]
    sigma: float
    grid: Grid
    rounded: bool
    refinement: Refinement
    flip_shift: int

    def __post_init__(self) -> None:
        check_input_size(self.input_size)

    @property
    def map_size(self) -> tuple[int, int]:
        """(H, W) of the heat maps."""
        return self.input_size[0] // STRIDE, self.input_size[1] // STRIDE

    def encode(self, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the target heat maps of a batch (see `gaussian_heat_maps`).

        Args:
            points: (B, K, 2) x, y in pixels of the network's input.
            weights: (B, K), above 0 for labelled points.

        Returns:
            Heat maps (B, K, H, W) float32 and weights (B, K) float32, which are 0 for points outside the maps.
        """
        scale, offset = self._to_map(points)
        centres = points.float() * scale + offset
        if self.rounded:
            centres = (centres + 0.5).trunc()
        cutoff = 3.0 if self.rounded else math.inf
        return gaussian_heat_maps(centres, weights, self.map_size, self.sigma, cutoff)

    def decode(self, heat_maps: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points of heat maps (see `decode_heat_maps`).

        Args:
            heat_maps: (B, K, H, W).

        Returns:
            Points (B, K, 2) float32 x, y in pixels of the network's input, and the maxima (B, K) float32.

        Raises:
            UserError: a heat map contains NaN, or its maximum is not finite.
        """
        positions, scores = decode_heat_maps(heat_maps, self.refinement, self.sigma)
        scale, offset = self._to_map(positions)
        return (positions - offset) / scale, scores

    def flip_test(self, model: Callable[[Tensor], Tensor], images: Tensor, flip: NDArray[np.int64]) -> Tensor:
        """Average the heat maps of images and of their mirror images (see `flip.flip_test`)."""
        return flip_test(model, images, flip, self.flip_shift)

    def _to_map(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(2,) scale and (2,) offset of x, y from input to heat-map pixels."""
        axes = [self.grid(self.input_size[axis], self.map_size[axis]) for axis in (1, 0)]
        scale, offset = torch.tensor(axes, dtype=torch.float32, device=like.device).unbind(1)
        return scale, offset


#: The codecs by name; `make_codec` builds them.
#: mmpose: mmpose 0.x and HRNet. The peak is on the nearest pixel. The grid is not symmetric: the flip test would have
#:     to shift the mirrored maps by 3/4 of a pixel, and it shifts them by one.
#: udp: UDP (Huang et al., CVPR 2020) with Gaussian heat maps, without its offset maps.
#: unbiased: as udp, but each heat-map pixel stands for the 4 x 4 input pixels that it covers.
CODECS: Final[dict[CodecName, Callable[..., Codec]]] = {
    "mmpose": partial(Codec, grid=same_origin, rounded=True, refinement="quarter_pixel", flip_shift=1),
    "udp": partial(Codec, grid=same_ends, rounded=False, refinement="dark", flip_shift=0),
    "unbiased": partial(Codec, grid=same_area, rounded=False, refinement="dark", flip_shift=0),
}


def make_codec(name: CodecName, *, input_size: tuple[int, int], sigma: float, decoding: Decoding = "auto") -> Codec:
    """Build a codec.

    Args:
        name: one of `CODECS`.
        input_size: (height, width) of the network's input.
        sigma: standard deviation of the target Gaussians in heat-map pixels.
        decoding: refinement of the decoded points; auto: that of the codec. It changes neither the grid nor the flip
            test, because these follow from the heat maps that the network was trained with.

    Raises:
        UserError: heat maps of a quarter of the input size are not possible.
    """
    codec = CODECS[name](input_size=input_size, sigma=sigma)
    return codec if decoding == "auto" else replace(codec, refinement=decoding)

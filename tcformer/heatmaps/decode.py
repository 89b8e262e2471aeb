"""Find the points of heat maps: the largest pixel, and where between the pixels the maximum is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from tcformer.errors import require_finite
from tcformer.heatmaps.names import Refinement


def decode_heat_maps(heat_maps: Tensor, refinement: Refinement, sigma: float) -> tuple[Tensor, Tensor]:
    """Find the maximum of each heat map.

    The position is that of the largest pixel (the first one in a tie), moved by a refinement. If no value is above 0,
    the position is (-1, -1), which is outside the map.

    Args:
        heat_maps: (B, K, H, W), of any floating-point type; computed in float32.
        refinement: one of `REFINEMENTS`.
        sigma: standard deviation of the target Gaussians in heat-map pixels.

    Returns:
        Positions (B, K, 2) float32 x, y in heat-map pixels, and the maxima (B, K) float32.

    Raises:
        UserError: a heat map contains NaN, or its maximum is not finite.
    """
    maps = heat_maps.float()
    width = maps.shape[-1]
    scores, index = maps.flatten(2).max(-1)  # (B, K); the maximum of a map with a NaN is NaN
    require_finite(scores, "heat maps")
    largest = torch.stack([index % width, index // width], -1)  # (B, K, 2)
    points = largest + REFINEMENTS[refinement](maps, largest, sigma)
    return torch.where(scores.unsqueeze(-1) > 0, points, -1.0), scores


def quarter_pixel(maps: Tensor, largest: Tensor, sigma: float) -> Tensor:
    """A quarter of a pixel along each axis towards the larger neighbour (mmpose's post-processing "default").

    It is 0 if the largest pixel lies in the first two or in the last row or column. `sigma` is not used.

    Args:
        maps: (B, K, H, W) float32.
        largest: (B, K, 2) x, y of the largest pixels.

    Returns:
        (B, K, 2) float32 x, y in heat-map pixels.
    """
    height, width = maps.shape[-2:]
    x, y = largest.unbind(-1)
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    flat, index = maps.flatten(2), y * width + x

    def slope(step: int) -> Tensor:
        before, after = (flat.gather(2, torch.where(inner, index + d, 0).unsqueeze(-1)) for d in (-step, step))
        return torch.sign(after - before).squeeze(-1)

    return 0.25 * torch.stack([slope(1), slope(width)], -1)


def taylor(maps: Tensor, largest: Tensor, sigma: float) -> Tensor:
    """To the maximum of the quadratic that fits the logarithm of 3 x 3 pixels: exact for a Gaussian.

    This is the Taylor step of DARK (Zhang et al., CVPR 2020) with differences of neighbouring pixels. At a border, the
    3 x 3 pixels are those one pixel farther inside. The step ends at most half a pixel from the largest pixel, so that
    the point stays in that pixel, and it is 0 where the logarithm has no maximum, as on a plateau. `sigma` is not used.

    Args:
        maps: (B, K, H, W) float32.
        largest: (B, K, 2) x, y of the largest pixels.

    Returns:
        (B, K, 2) float32 x, y in heat-map pixels.
    """
    height, width = maps.shape[-2:]
    middle = torch.stack([largest[..., 0].clamp(1, width - 2), largest[..., 1].clamp(1, height - 2)], -1)
    around = torch.arange(-1, 2, device=maps.device)
    window = (width * around[:, None] + around).flatten()  # (9,)
    index = (middle[..., 1] * width + middle[..., 0]).unsqueeze(-1) + window
    values = maps.flatten(2).gather(2, index)  # (B, K, 9)
    peak = values.amax(-1, keepdim=True).clamp(min=1e-30)
    # Of pixels that are not positive, or far below the maximum, only the sign of the slope matters.
    a, b, c, d, e, f, g, h, i = (values / peak).clamp(min=1e-6).log().unbind(-1)  # rows abc, def, ghi

    dx, dy = 0.5 * (f - d), 0.5 * (h - b)
    dxx, dyy, dxy = f - 2 * e + d, h - 2 * e + b, 0.25 * (i - g - c + a)
    determinant = dxx * dyy - dxy * dxy
    has_maximum = (dxx < 0) & (determinant > 0)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1)
    step = step / torch.where(has_maximum, determinant, 1.0).unsqueeze(-1)
    offset = (middle - largest + step).clamp(-0.5, 0.5)
    return torch.where(has_maximum.unsqueeze(-1), offset, 0.0)


def dark(maps: Tensor, largest: Tensor, sigma: float) -> Tensor:
    """The step of `taylor` on smoothed heat maps: the complete decoding of DARK (Zhang et al., CVPR 2020).

    DARK smooths predictions that are no Gaussians ("modulation") with the Gaussian of the targets. Beyond the border a
    map counts as 0, so points within 3 `sigma` of the border move inwards.

    Args:
        maps: (B, K, H, W) float32.
        largest: (B, K, 2) x, y of the largest pixels, before smoothing.
        sigma: standard deviation of the target Gaussians in heat-map pixels.

    Returns:
        (B, K, 2) float32 x, y in heat-map pixels.
    """
    radius = math.ceil(3 * sigma)
    distance = torch.arange(-radius, radius + 1, dtype=torch.float32, device=maps.device)
    kernel = torch.exp(-distance.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    smooth = maps.flatten(0, 1).unsqueeze(1)  # (B * K, 1, H, W)
    smooth = conv2d(smooth, kernel.view(1, 1, 1, -1), padding=(0, radius))
    smooth = conv2d(smooth, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return taylor(smooth.view_as(maps), largest, sigma)


#: How the position of a maximum is refined, by name.
REFINEMENTS: Final[dict[Refinement, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "quarter_pixel": quarter_pixel,
    "taylor": taylor,
    "dark": dark,
}

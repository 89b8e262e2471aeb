"""Find the points of heat maps: the largest pixel, and where between the pixels the maximum is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

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
    with torch.autocast(maps.device.type, enabled=False):  # matrix products would be in bfloat16
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

    gradient = torch.stack([0.5 * (f - d), 0.5 * (h - b)], -1)
    step = _newton_step(gradient, f - 2 * e + d, h - 2 * e + b, 0.25 * (i - g - c + a))
    offset = (middle - largest + step).clamp(-0.5, 0.5)
    return torch.where(step.isfinite(), offset, 0.0)


def dark(maps: Tensor, largest: Tensor, sigma: float) -> Tensor:
    """To the maximum of the smoothed heat map: the decoding of DARK (Zhang et al., CVPR 2020), exact up to the border.

    DARK smooths a prediction, which is no Gaussian, with the Gaussian g of the targets ("modulation") and takes one
    Taylor step on the logarithm. Here the smoothed map at a point c is divided by the norm of the part of g that is
    inside the map, <map, g_c> / |g_c|, so that the border does not move the maximum. At that maximum the target of c,
    times a factor, is the best least-squares fit of the heat map. The derivatives are those of g instead of differences
    of pixels. There are three steps of at most half a pixel along each axis; one is exact far from the border.

    Args:
        maps: (B, K, H, W) float32.
        largest: (B, K, 2) x, y of the largest pixels, before smoothing.
        sigma: standard deviation of the target Gaussians in heat-map pixels.

    Returns:
        (B, K, 2) float32 x, y in heat-map pixels.
    """
    height, width = maps.shape[-2:]
    end = largest.new_tensor([width, height]) - 0.5
    scaled = maps / maps.amax((-2, -1), keepdim=True).clamp(min=1e-30)
    point = largest.float()
    for _ in range(3):
        x = _gaussian_and_derivatives(point[..., 0], width, sigma)  # (B, K, W, 3)
        y = _gaussian_and_derivatives(point[..., 1], height, sigma)  # (B, K, H, 3)
        product = y.mT @ scaled @ x  # (B, K, 3, 3): derivatives of <map, g_c> by y and x
        value = product[..., 0, 0]
        dx, dy = product[..., 0, 1] / value, product[..., 1, 0] / value
        dxx, dyy = product[..., 0, 2] / value - dx * dx, product[..., 2, 0] / value - dy * dy
        dxy = product[..., 1, 1] / value - dx * dy
        (norm_x, norm_xx), (norm_y, norm_yy) = _log_norm_derivatives(x), _log_norm_derivatives(y)
        gradient = torch.stack([dx - norm_x, dy - norm_y], -1)
        step = _newton_step(gradient, dxx - norm_xx, dyy - norm_yy, dxy)
        step = torch.where(step.isfinite() & (value > 0).unsqueeze(-1), step.clamp(-0.5, 0.5), 0.0)
        point = torch.minimum((point + step).clamp(min=-0.5), end)
    return point - largest


def _gaussian_and_derivatives(centre: Tensor, length: int, sigma: float) -> Tensor:
    """The Gaussian around `centre` (B, K) at pixels 0, 1, ... and its derivatives by the centre, (B, K, length, 3)."""
    t = (torch.arange(length, dtype=torch.float32, device=centre.device) - centre.unsqueeze(-1)) / sigma
    polynomials = torch.stack([torch.ones_like(t), t / sigma, (t * t - 1) / sigma**2], -1)
    return torch.exp(-0.5 * t * t).unsqueeze(-1) * polynomials


def _log_norm_derivatives(g: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative (B, K) of log |g_c| along one axis, from `_gaussian_and_derivatives`."""
    square = (g[..., 0] * g[..., 0]).sum(-1)
    first = (g[..., 0] * g[..., 1]).sum(-1) / square
    second = (g[..., 1] * g[..., 1] + g[..., 0] * g[..., 2]).sum(-1) / square
    return first, second - 2 * first * first


def _newton_step(gradient: Tensor, dxx: Tensor, dyy: Tensor, dxy: Tensor) -> Tensor:
    """The step (B, K, 2) to the maximum of a quadratic; not finite where it has none.

    Args:
        gradient: (B, K, 2) derivatives by x and y.
        dxx: (B, K), as dyy and dxy, a second derivative.
        dyy: see dxx.
        dxy: see dxx.
    """
    determinant = dxx * dyy - dxy * dxy
    dx, dy = gradient.unbind(-1)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1)
    return step / torch.where((dxx < 0) & (determinant > 0), determinant, torch.nan).unsqueeze(-1)


#: How the position of a maximum is refined, by name.
REFINEMENTS: Final[dict[Refinement, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "quarter_pixel": quarter_pixel,
    "taylor": taylor,
    "dark": dark,
}

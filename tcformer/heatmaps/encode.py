"""Draw a Gaussian for each labelled point."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_heat_maps(
    centres: Tensor, weights: Tensor, map_size: tuple[int, int], sigma: float, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Draw the target heat maps of a batch.

    A point whose Gaussian lies completely outside the map gets the weight 0; there, a Gaussian is taken to end 3 sigma
    from its centre. A point outside the map whose Gaussian reaches into it keeps its weight, and the map holds that
    part of the Gaussian. The map of a point of weight 0 is 0.

    Args:
        centres: (B, K, 2) float32 x, y in heat-map pixels. The Gaussian has the value 1 there.
        weights: (B, K), above 0 for labelled points.
        map_size: (H, W) of the heat maps.
        sigma: standard deviation in heat-map pixels.
        cutoff: in standard deviations; a pixel farther from the centre along either axis is 0.

    Returns:
        Heat maps (B, K, H, W) float32 and weights (B, K) float32.
    """
    height, width = map_size
    radius = 3 * sigma
    size = centres.new_tensor([width, height])
    inside = ((centres - radius < size) & (centres + radius + 1 >= 0)).all(-1)  # (B, K)
    weights = weights.float() * inside

    def profile(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, dtype=torch.float32, device=centre.device) - centre.unsqueeze(-1)
        gaussian = torch.exp(-distance.square() / (2 * sigma**2))
        return gaussian * (distance.abs() <= cutoff * sigma)  # (B, K, length)

    rows = profile(centres[..., 1], height) * (weights > 0).unsqueeze(-1)
    return rows.unsqueeze(-1) * profile(centres[..., 0], width).unsqueeze(-2), weights

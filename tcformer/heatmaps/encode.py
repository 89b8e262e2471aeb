"""Encode keypoints as heat maps: a Gaussian for each labelled point, as in mmpose 0.x ("MSRA", biased encoding)."""

from __future__ import annotations

import torch
from torch import Tensor

from tcformer.errors import UserError


def check_input_size(input_size: tuple[int, int]) -> None:
    """Raise UserError unless heat maps of a quarter of (height, width) pixels are possible."""
    height, width = input_size
    if height < 32 or width < 32 or height % 4 or width % 4:
        raise UserError(f"input_size {height} x {width}: expected multiples of 4 of at least 32")


def gaussian_heat_maps(
    points: Tensor, weights: Tensor, input_size: tuple[int, int], map_size: tuple[int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw the target heat maps of a batch.

    The peak, of value 1, is on the heat-map pixel nearest to the point. Beyond 3 sigma along either axis the map is 0.
    A point whose Gaussian lies completely outside the map gets the weight 0. A point outside the map whose Gaussian
    reaches into it keeps its weight, and the map holds that part of the Gaussian. The map of a point of weight 0 is 0.

    Args:
        points: (B, K, 2) x, y in pixels of the network's input.
        weights: (B, K), above 0 for labelled points.
        input_size: (height, width) of the network's input.
        map_size: (H, W) of the heat maps.
        sigma: standard deviation in heat-map pixels.

    Returns:
        Heat maps (B, K, H, W) float32 and weights (B, K) float32.
    """
    height, width = map_size
    scale = points.new_tensor([width / input_size[1], height / input_size[0]], dtype=torch.float32)
    peak = (points.float() * scale + 0.5).trunc()  # (B, K, 2)
    radius = 3 * sigma
    size = peak.new_tensor([width, height])
    inside = ((peak - radius < size) & (peak + radius + 1 >= 0)).all(-1)  # (B, K)
    weights = weights.float() * inside

    def profile(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, dtype=torch.float32, device=centre.device) - centre.unsqueeze(-1)
        return torch.exp(-distance.square() / (2 * sigma**2)) * (distance.abs() <= radius)  # (B, K, length)

    rows = profile(peak[..., 1], height) * (weights > 0).unsqueeze(-1)
    return rows.unsqueeze(-1) * profile(peak[..., 0], width).unsqueeze(-2), weights

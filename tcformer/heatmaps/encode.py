"""Heat-map targets: one Gaussian a labelled point, as mmpose 0.x draws them ("MSRA", biased encoding)."""

from __future__ import annotations

import torch
from torch import Tensor

from tcformer.errors import UserError


def check_input_size(input_size: tuple[int, int]) -> None:
    """Raise UserError unless a crop of (height, width) pixels has heat maps of a quarter of its size."""
    height, width = input_size
    if height < 32 or width < 32 or height % 4 or width % 4:
        raise UserError(f"input_size {height} x {width}: expected a height and width of at least 32 that divide by 4")


def gaussian_heat_maps(
    points: Tensor, weights: Tensor, input_size: tuple[int, int], map_size: tuple[int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw the targets of a batch.

    The peak, of value 1, stands on the map pixel nearest to the point; beyond 3 sigma along either axis the
    map is 0. A point whose Gaussian lies wholly outside the map loses its weight; one just outside keeps it,
    and the map shows the visible rim. A point of weight 0 has an all-zero map.

    Args:
        points: (B, K, 2) x, y in pixels of the network's input.
        weights: (B, K), above 0 where the point is labelled.
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

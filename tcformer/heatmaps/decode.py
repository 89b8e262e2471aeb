"""Decode heat maps into coordinates, as mmpose 0.x does it."""

from __future__ import annotations

import torch
from torch import Tensor

from tcformer.errors import require_finite


def decode_heat_maps(heat_maps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the maximum of each heat map.

    The position is that of the largest pixel (the first one in a tie), moved along each axis by a quarter of a pixel
    towards the larger neighbour. It is not moved if the pixel lies in the first two or in the last row or column
    (mmpose's post-processing "default"). If no value is above 0, the position is (-1, -1).

    Args:
        heat_maps: (B, K, H, W).

    Returns:
        Positions (B, K, 2) float32 x, y in heat-map pixels, and the maxima (B, K) float32.

    Raises:
        UserError: a heat map contains NaN, or its maximum is not finite.
    """
    maps = heat_maps.float()
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    scores, index = flat.max(-1)  # (B, K); the maximum of a map with a NaN is NaN
    require_finite(scores, "heat maps")
    x, y = index % width, index // width

    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)

    def slope(step: int) -> Tensor:
        before, after = (flat.gather(2, torch.where(inner, index + d, 0).unsqueeze(-1)) for d in (-step, step))
        return torch.sign(after - before).squeeze(-1)

    offset = 0.25 * torch.stack([slope(1), slope(width)], -1)
    points = torch.stack([x, y], -1) + offset
    return torch.where(scores.unsqueeze(-1) > 0, points, -1.0), scores

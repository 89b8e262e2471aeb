"""The loss between predicted and target heat maps, and the share of points that are found."""

from __future__ import annotations

import torch
from torch import Tensor


def heat_map_loss(heat_maps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of each sample over all its points and pixels.

    As in mmpose's JointsMSELoss, a point of weight 0 contributes 0 but counts in the mean. So the loss of a sample does
    not depend on the other samples of the batch, and a sample without labelled points has the loss 0.

    Args:
        heat_maps: (B, K, H, W) float32.
        targets: (B, K, H, W) float32.
        weights: (B, K) float32.

    Returns:
        (B,) float32, the loss of each sample.
    """
    return ((heat_maps - targets) * weights[..., None, None]).square().mean((1, 2, 3))


def share_of_correct(points: Tensor, truth: Tensor, weights: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Fraction of each sample's points that are correct (PCK).

    A point is correct if its distance is below 5 % of the crop, with x measured in widths of the crop and y in heights.

    Args:
        points: (B, K, 2) predicted x, y in pixels of the network's input.
        truth: (B, K, 2) annotated.
        weights: (B, K), 1 for labelled points, else 0.
        input_size: (height, width) of the network's input.

    Returns:
        (B,); 1 for a sample without a labelled point.
    """
    crop = points.new_tensor([input_size[1], input_size[0]])
    correct = ((points / crop - truth / crop).norm(dim=-1) < 0.05) * weights
    labelled = weights.sum(-1)
    return torch.where(labelled > 0, correct.sum(-1) / labelled.clamp(min=1), 1.0)

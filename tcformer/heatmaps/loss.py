"""The loss between predicted and target heat maps."""

from __future__ import annotations

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

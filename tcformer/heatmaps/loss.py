"""The loss of heat maps."""

from __future__ import annotations

from torch import Tensor


def heat_map_loss(heat_maps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of each sample over all its points and pixels.

    As mmpose's JointsMSELoss: a point without weight contributes 0 but is counted in the mean, so a sample's
    loss does not depend on the others of its batch and a sample without points has loss 0.

    Args:
        heat_maps: (B, K, H, W) float32.
        targets: (B, K, H, W) float32.
        weights: (B, K) float32.

    Returns:
        (B,) float32.
    """
    return ((heat_maps - targets) * weights[..., None, None]).square().mean((1, 2, 3))

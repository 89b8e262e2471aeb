"""Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of pairs of samples, label smoothing (arXiv:1512.00567)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Targets (B, num_classes) float32 of labels (B,) int64: `smoothing` is spread evenly, the rest is on the label."""
    targets = torch.full((len(labels), num_classes), smoothing / num_classes)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / num_classes)


def mix_pair(
    images: Tensor,
    targets: Tensor,
    mixup: float,
    cutmix: float,
    cutmix_probability: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix two samples with each other by the same ratio (timm's mode "pair").

    Args:
        images: (2, 3, H, W) float32.
        targets: (2, classes) float32.
        mixup: alpha of the Beta(alpha, alpha) distribution of the mixup ratio; 0 for no mixup.
        cutmix: the same for CutMix.
        cutmix_probability: probability of CutMix instead of mixup, if both are on.
        rng: the only source of randomness.

    Returns:
        Images and targets of the same shapes.
    """
    use_cutmix = cutmix > 0 and (mixup <= 0 or rng.random() < cutmix_probability)
    alpha = cutmix if use_cutmix else mixup
    if alpha <= 0:
        return images, targets
    ratio = float(rng.beta(alpha, alpha))
    if use_cutmix:
        height, width = images.shape[-2:]
        side = np.sqrt(1 - ratio)
        cut_height, cut_width = int(height * side), int(width * side)
        y, x = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = max(0, y - cut_height // 2), min(height, y + (cut_height + 1) // 2)
        left, right = max(0, x - cut_width // 2), min(width, x + (cut_width + 1) // 2)
        images = images.clone()
        images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
        ratio = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = ratio * images + (1 - ratio) * images.flip(0)
    return images, ratio * targets + (1 - ratio) * targets.flip(0)

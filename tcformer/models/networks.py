"""Whole networks: backbone and what a task puts on it. Both map images (B, 3, H, W) to predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tcformer.models.backbone import Backbone
from tcformer.models.layers import init_weights
from tcformer.models.mta import MTA
from tcformer.models.variants import Variant


class Network(nn.Module):
    """What all networks share.

    Attributes:
        config: variant, task and options that `create_model` built this network from; JSON-able.
        backbone: images to the tokens of four stages.
    """

    config: dict[str, Any]
    backbone: Backbone


class Classifier(Network):
    """Class logits from the mean of the last stage's tokens.

    Args:
        variant: sizes.
        num_classes: logits.
        drop_path_rate: stochastic depth of the backbone.
    """

    def __init__(self, variant: Variant, num_classes: int = 1000, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.backbone = Backbone(variant, drop_path_rate)
        self.head = nn.Linear(variant.widths[-1], num_classes)
        self.apply(init_weights)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B, num_classes) logits."""
        return self.head(self.backbone(images)[-1].features.mean(1))


class HeatmapHead(nn.Module):
    """One 1x1 convolution to a heat map per keypoint."""

    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(width, num_keypoints, kernel_size=1)

    def forward(self, m: Tensor) -> Tensor:
        """(B, C, H, W) map to (B, K, H, W), contiguous."""
        # As a product, because losses and decoders want maps one after the other, and a convolution of a map
        # in channels-last memory format returns them interleaved.
        pixels = m.flatten(2)  # (B, C, HW)
        weight, bias = self.final_layer.weight.flatten(1), self.final_layer.bias  # (K, C), (K,)
        assert bias is not None
        maps = torch.baddbmm(bias[None, :, None], weight.expand(len(m), -1, -1), pixels)  # (B, K, HW)
        return maps.unflatten(2, m.shape[2:])


class PoseEstimator(Network):
    """Keypoint heat maps at a quarter of the image's size, through the MTA neck.

    Args:
        variant: sizes.
        num_keypoints: heat maps.
        drop_path_rate: stochastic depth of the backbone.
    """

    def __init__(self, variant: Variant, num_keypoints: int = 133, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.backbone = Backbone(variant, drop_path_rate)
        self.neck = MTA(variant)
        self.keypoint_head = HeatmapHead(variant.neck_width, num_keypoints)
        self.apply(init_weights)
        # Heat maps are almost everywhere 0. Started like the other layers, this one makes large maps, and
        # training first spends thousands of steps on an all-zero plateau.
        nn.init.normal_(self.keypoint_head.final_layer.weight, std=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B, num_keypoints, H0, W0) heat maps, H0 and W0 the patch grid's size."""
        return self.keypoint_head(self.neck(self.backbone(images)))

"""Necks beside MTA: from the feature maps of a backbone's stages to the one map that heat maps are read off.

They take maps, so they serve the baselines' backbones as well as TCFormer without MTA.
"""

from __future__ import annotations

from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 256


class DeconvNeck(nn.Module):
    """Transposed convolutions of the last, coarsest map up to a quarter of the image: SimpleBaseline's head.

    Args:
        in_width: channels of the last map.
        stride: pixels of the image for a pixel of the last map; 32 takes three layers, 16 two.

    Source: Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018.
    """

    def __init__(self, in_width: int, stride: int) -> None:
        super().__init__()
        self.out_width = _WIDTH
        layers: list[nn.Module] = []
        for _ in range(int(log2(stride / 4))):
            layers += [
                nn.ConvTranspose2d(in_width, _WIDTH, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(_WIDTH),
                nn.ReLU(inplace=True),
            ]
            in_width = _WIDTH
        self.deconv_layers = nn.Sequential(*layers)

    def reset_parameters(self) -> None:
        """SimpleBaseline's start."""
        for layer in self.deconv_layers:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.001)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps of the stages to (B, 256, H / 4, W / 4). `size` is (H / 4, W / 4), rounded up."""
        m = self.deconv_layers(maps[-1])
        # A coarse map's sides are rounded up, so images whose sides 32 does not divide come out too large.
        return m if m.shape[2:] == size else F.interpolate(m, size, mode="bilinear")


class FinestMap(nn.Module):
    """HRNet's own high-resolution output: its finest map as it is.

    Args:
        width: channels of the finest map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def reset_parameters(self) -> None:
        """Nothing to learn."""

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps of the branches to the finest of them, (B, C, H / 4, W / 4)."""
        return maps[0]


class AllMaps(nn.Module):
    """HRNetV2's output: all maps enlarged to the finest and mixed by a 1x1 convolution.

    Args:
        widths: channels of the maps.

    Source: Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI 2020.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.out_width = sum(widths)
        self.mix = nn.Sequential(
            nn.Conv2d(self.out_width, self.out_width, kernel_size=1),
            nn.BatchNorm2d(self.out_width),
            nn.ReLU(inplace=True),
        )

    def reset_parameters(self) -> None:
        """HRNet's start."""
        convolution = self.mix[0]
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        nn.init.normal_(convolution.weight, std=0.001)
        nn.init.zeros_(convolution.bias)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps of the branches to (B, sum of widths, H / 4, W / 4)."""
        enlarged = [maps[0], *(F.interpolate(m, maps[0].shape[2:], mode="bilinear") for m in maps[1:])]
        return self.mix(torch.cat(enlarged, 1))

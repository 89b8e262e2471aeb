"""Necks other than MTA: from the feature maps of the stages of a backbone to the map that the head gets.

Their input is maps, so they work with the backbones of the baselines and with TCFormer without MTA.
"""

from __future__ import annotations

from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 256


class DeconvNeck(nn.Module):
    """SimpleBaseline's head: transposed convolutions of the last, coarsest map up to a quarter of the image size.

    Args:
        in_width: channels of the last map.
        stride: image pixels for each pixel of the last map; 32 needs three layers, 16 two.

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
        """Initialise as SimpleBaseline."""
        for layer in self.deconv_layers:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.001)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Upsample the last of the stages' maps.

        Args:
            maps: (B, C, h, w) of each stage, finest first.
            size: (H / 4, W / 4) of the images (H, W), rounded up.

        Returns:
            (B, 256, H / 4, W / 4).
        """
        m = self.deconv_layers(maps[-1])
        # A coarse map's sides are rounded up, so images whose sides 32 does not divide come out too large.
        return m if m.shape[2:] == size else F.interpolate(m, size, mode="bilinear")


class FinestMap(nn.Module):
    """HRNet's output: its finest map, unchanged.

    Args:
        width: channels of the finest map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def reset_parameters(self) -> None:
        """There are no parameters."""

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the finest map, (B, C, H / 4, W / 4). `size` is not used."""
        return maps[0]


class AllMaps(nn.Module):
    """HRNetV2's output: all maps, upsampled to the size of the finest and mixed by a 1x1 convolution.

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
        """Initialise as HRNet."""
        convolution = self.mix[0]
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        nn.init.normal_(convolution.weight, std=0.001)
        nn.init.zeros_(convolution.bias)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Combine all maps to (B, sum of widths, H / 4, W / 4). `size` is not used."""
        enlarged = [maps[0], *(F.interpolate(m, maps[0].shape[2:], mode="bilinear") for m in maps[1:])]
        return self.mix(torch.cat(enlarged, 1))

"""Whole networks: a backbone and what a task puts on it. All map images (B, 3, H, W) to predictions."""

from __future__ import annotations

from math import ceil
from typing import Any

from torch import Tensor, nn

from tcformer.models.backbone import Backbone
from tcformer.models.heads import HeatmapHead, MeshHead, MeshPrediction
from tcformer.models.layers import init_weights
from tcformer.models.mta import MTA
from tcformer.models.necks import AllMaps, DeconvNeck, FinestMap
from tcformer.models.ops import token2map
from tcformer.models.timm_backbone import TimmBackbone
from tcformer.models.tokens import Tokens
from tcformer.models.variants import Variant


class Network(nn.Module):
    """What all networks share.

    Attributes:
        config: variant, task and options that `create_model` built this network from; JSON-able.
        backbone: images to what the stages give: `Tokens` of TCFormer, maps (B, C, h, w) of timm's backbones.
    """

    config: dict[str, Any]
    backbone: Backbone | TimmBackbone

    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images to a feature map (B, C, h, w) of each stage, finest first."""
        return [as_map(stage) for stage in self.backbone(images)]

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to one feature vector (B, C) each: the mean of the last stage."""
        last = self.backbone(images)[-1]
        return last.features.mean(1) if isinstance(last, Tokens) else last.mean((2, 3))


class Classifier(Network):
    """Class logits from the last stage's mean; for timm's backbones as timm's own classifier does.

    Args:
        backbone: of TCFormer, or of timm for pooled features.
        width: features of an image.
        num_classes: logits.
    """

    def __init__(self, backbone: Backbone | TimmBackbone, width: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B, num_classes) logits."""
        pooled = self.backbone.pool(images) if isinstance(self.backbone, TimmBackbone) else self.pooled(images)
        return self.head(pooled)


class PoseEstimator(Network):
    """Keypoint heat maps at a quarter of the image's size.

    Args:
        backbone: of TCFormer, or of timm for its maps.
        neck: from the stages to one map.
        width: channels of that map.
        num_keypoints: heat maps.
    """

    def __init__(
        self,
        backbone: Backbone | TimmBackbone,
        neck: MTA | DeconvNeck | FinestMap | AllMaps,
        width: int,
        num_keypoints: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.keypoint_head = HeatmapHead(width, num_keypoints)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B, num_keypoints, H / 4, W / 4) heat maps, sides rounded up."""
        if isinstance(self.neck, MTA):
            m = self.neck(self.backbone(images))
        else:
            m = self.neck(self.maps(images), (ceil(images.shape[2] / 4), ceil(images.shape[3] / 4)))
        return self.keypoint_head(m)


class MeshRegressor(Network):
    """Parameters of a body model from the last stage's mean, as HMR.

    Args:
        backbone: of TCFormer, or of timm for its maps.
        width: channels of the last stage.
    """

    def __init__(self, backbone: Backbone | TimmBackbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.mesh_head = MeshHead(width)

    def forward(self, images: Tensor) -> MeshPrediction:
        """(B, 3, H, W) images to the body parameters of each."""
        return self.mesh_head(self.pooled(images))


class FeatureExtractor(Network):
    """The stages' feature maps, for a detector or whatever else one puts on them."""

    def __init__(self, backbone: Backbone | TimmBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images to a map (B, C, h, w) of each stage, finest first."""
        return self.maps(images)


def as_map(stage: Tokens | Tensor) -> Tensor:
    """A stage's output as a feature map (B, C, h, w)."""
    return token2map(stage.features, stage.plan) if isinstance(stage, Tokens) else stage


def make_neck(
    kind: str, variant: Variant | None, widths: list[int], strides: list[int]
) -> tuple[MTA | DeconvNeck | FinestMap | AllMaps, int]:
    """The neck `kind` for stages of these channels and strides, and the channels of its map."""
    if kind == "mta":
        assert variant is not None
        return MTA(variant), variant.neck_width
    neck: DeconvNeck | FinestMap | AllMaps
    if kind == "deconv":
        neck = DeconvNeck(widths[-1], strides[-1])
    elif kind == "finest_map":
        neck = FinestMap(widths[0])
    else:
        neck = AllMaps(widths)
    return neck, neck.out_width


def initialise(model: Network) -> None:
    """Draw all weights afresh, except those of timm's backbones, which draw their own."""
    for child in model.children():
        if not isinstance(child, TimmBackbone):
            child.apply(init_weights)
    for module in model.modules():
        if isinstance(module, HeatmapHead | MeshHead | DeconvNeck | AllMaps):
            module.reset_parameters()

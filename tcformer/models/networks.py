"""Complete networks: a backbone with the neck and head of a task. All map images (B, 3, H, W) to predictions."""

from __future__ import annotations

from math import ceil
from typing import Any

from torch import Tensor, nn

from tcformer.models.backbone import Backbone
from tcformer.models.ctm import CTM
from tcformer.models.heads import HeatmapHead, MeshHead, MeshPrediction
from tcformer.models.layers import init_weights
from tcformer.models.mta import MTA
from tcformer.models.necks import AllMaps, DeconvNeck, FinestMap
from tcformer.models.ops import token2map
from tcformer.models.timm_backbone import TimmBackbone
from tcformer.models.tokens import Tokens
from tcformer.models.variants import Variant


class Network(nn.Module):
    """The base class of all networks.

    Attributes:
        config: variant, task and options that `create_model` built this network from. It can be written as JSON.
        backbone: maps images to the outputs of the stages: `Tokens` of TCFormer, maps (B, C, h, w) of timm's backbones.
    """

    config: dict[str, Any]
    backbone: Backbone | TimmBackbone

    def maps(self, images: Tensor) -> list[Tensor]:
        """Compute a feature map (B, C, h, w) of each stage, finest first, of images (B, 3, H, W)."""
        return [as_map(stage) for stage in self.backbone(images)]

    def set_progress(self, share: float) -> None:
        """Tell the network how much of its training is done, from 0 to 1; see `ReductionOptions.cluster_after`.

        A training loop calls it before every step. Without a call, tokens are clustered.
        """
        for module in self.modules():
            if isinstance(module, CTM):
                module.set_progress(share)

    def pooled(self, images: Tensor) -> Tensor:
        """Compute the mean (B, C) of the last stage of images (B, 3, H, W)."""
        last = self.backbone(images)[-1]
        return last.features.mean(1) if isinstance(last, Tokens) else last.mean((2, 3))


class Classifier(Network):
    """Class logits from the mean of the last stage. Features of timm's backbones are pooled as timm does.

    Args:
        backbone: of TCFormer, or of timm with the output "pooled".
        width: number of pooled features.
        num_classes: number of logits.
    """

    def __init__(self, backbone: Backbone | TimmBackbone, width: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, num_classes) of images (B, 3, H, W)."""
        pooled = self.backbone.pool(images) if isinstance(self.backbone, TimmBackbone) else self.pooled(images)
        return self.head(pooled)


class PoseEstimator(Network):
    """Heat maps of keypoints at a quarter of the image size.

    Args:
        backbone: of TCFormer, or of timm with maps as output.
        neck: from the stages to one map.
        width: channels of that map.
        num_keypoints: number of heat maps.
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
        """Compute the heat maps (B, num_keypoints, H / 4, W / 4), sides rounded up, of images (B, 3, H, W)."""
        if isinstance(self.neck, MTA):
            m = self.neck(self.backbone(images))
        else:
            m = self.neck(self.maps(images), (ceil(images.shape[2] / 4), ceil(images.shape[3] / 4)))
        return self.keypoint_head(m)


class MeshRegressor(Network):
    """Parameters of a body model from the mean of the last stage, as in HMR.

    Args:
        backbone: of TCFormer, or of timm with maps as output.
        width: channels of the last stage.
    """

    def __init__(self, backbone: Backbone | TimmBackbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.mesh_head = MeshHead(width)

    def forward(self, images: Tensor) -> MeshPrediction:
        """Predict body parameters for images (B, 3, H, W)."""
        return self.mesh_head(self.pooled(images))


class FeatureExtractor(Network):
    """The feature maps of the stages, for example for a detector."""

    def __init__(self, backbone: Backbone | TimmBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute a map (B, C, h, w) of each stage, finest first, of images (B, 3, H, W)."""
        return self.maps(images)


def as_map(stage: Tokens | Tensor) -> Tensor:
    """Convert the output of a stage to a feature map (B, C, h, w)."""
    return token2map(stage.features, stage.plan) if isinstance(stage, Tokens) else stage


def make_neck(
    name: str, variant: Variant | None, widths: list[int], strides: list[int]
) -> tuple[MTA | DeconvNeck | FinestMap | AllMaps, int]:
    """Make one of `NECKS`.

    Args:
        name: of the neck; not "auto".
        variant: sizes of TCFormer; None for timm's backbones.
        widths: channels of each stage.
        strides: image pixels for each pixel of the maps of each stage.

    Returns:
        The neck, and the channels of its map.
    """
    if name in ("mta", "cr_mta"):
        assert variant is not None
        return MTA(variant, reduce_by_clusters=name == "cr_mta"), variant.neck_width
    neck: DeconvNeck | FinestMap | AllMaps
    if name == "deconv":
        neck = DeconvNeck(widths[-1], strides[-1])
    elif name == "finest_map":
        neck = FinestMap(widths[0])
    else:
        neck = AllMaps(widths)
    return neck, neck.out_width


def initialise(model: Network) -> None:
    """Initialise all weights except those of timm's backbones, which timm has initialised."""
    for child in model.children():
        if not isinstance(child, TimmBackbone):
            child.apply(init_weights)
    for module in model.modules():
        if isinstance(module, HeatmapHead | MeshHead | DeconvNeck | AllMaps):
            module.reset_parameters()

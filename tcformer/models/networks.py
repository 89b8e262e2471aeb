"""Complete networks: a backbone with the neck and head of a task. All map images (B, 3, H, W) to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from torch import Tensor, nn

from tcformer.errors import UserError
from tcformer.models.backbone import NUM_STAGES, Backbone
from tcformer.models.ctm import CTM
from tcformer.models.heads import HeatmapHead, MeshHead, MeshPrediction
from tcformer.models.layers import init_weights
from tcformer.models.mta import MTA
from tcformer.models.necks import AllMaps, DeconvNeck, FinestMap
from tcformer.models.ops import token2map
from tcformer.models.timm_backbone import TimmBackbone
from tcformer.models.timm_conventions import FeatureInfo, pretrained_cfg, stage_indices
from tcformer.models.tokens import Tokens
from tcformer.models.variants import Variant


class Network(nn.Module):
    """The base class of all networks. Its methods and attributes without a longer docstring are conventions of timm.

    Attributes:
        config: variant, task and options that `create_model` built this network from. It can be written as JSON.
        backbone: maps images to the outputs of the stages: `Tokens` of TCFormer, maps (B, C, h, w) of timm's backbones.
    """

    config: dict[str, Any]
    backbone: Backbone | TimmBackbone

    def maps(self, images: Tensor) -> list[Tensor]:
        """Compute a feature map (B, C, h, w) of each stage, finest first, of images (B, 3, H, W)."""
        return [as_map(stage) for stage in self.backbone(images)]

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the outputs of stages, as the method of that name of timm's models.

        Args:
            images: (B, in_chans, H, W), normalised.
            indices: the last n stages; or stages counted from 0, negative ones from the end; None for all.
            norm: has no effect, because every stage of TCFormer ends with a norm.
            stop_early: stop after the last of the stages.
            output_fmt: "NCHW" for maps (B, C, h, w), "NLC" for tokens (B, N, C).
            intermediates_only: return the outputs alone.

        Returns:
            The outputs of the stages in their order; unless `intermediates_only`, a pair of the features (B, N, C) of
            the last computed stage and these outputs.

        Raises:
            UserError: there is no such stage or format.
        """
        taken = stage_indices(indices, len(self.backbone.widths))
        if isinstance(self.backbone, TimmBackbone):
            return self.backbone.intermediates(images, taken, norm, stop_early, output_fmt, intermediates_only)
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt: expected 'NCHW' or 'NLC', found {output_fmt!r:.40}; choose one of these")
        stages = self.backbone(images, max(taken) + 1 if stop_early else NUM_STAGES)
        outputs = [
            as_map(stage) if output_fmt == "NCHW" else stage.features
            for index, stage in enumerate(stages)
            if index in taken
        ]
        return outputs if intermediates_only else (stages[-1].features, outputs)

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and strides of the maps of the stages."""
        name = "backbone.norm{}" if isinstance(self.backbone, Backbone) else "backbone.net"
        return FeatureInfo(
            {"num_chs": width, "reduction": stride, "module": name.format(index + 1), "index": index}
            for index, (width, stride) in enumerate(zip(self.backbone.widths, self.backbone.strides))
        )

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.backbone.in_chans

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return self.backbone.widths[-1]

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """See `tcformer.models.timm_conventions.pretrained_cfg`."""
        return pretrained_cfg(self, self.config, self.in_chans)

    default_cfg = pretrained_cfg

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that should have no weight decay, apart from biases and norms, which timm knows."""
        if isinstance(self.backbone, Backbone) or not hasattr(self.backbone.net, "no_weight_decay"):
            return set()
        return {f"backbone.net.{name}" for name in self.backbone.net.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that divide the parameters into layers, for `timm.models.group_parameters`.

        Args:
            coarse: a group for each stage instead of each block.

        Raises:
            UserError: timm does not divide the backbone into layers.
        """
        from tcformer.models.layer_depth import group_matcher

        return group_matcher(self, coarse)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of a block in the backward pass instead of storing them."""
        if isinstance(self.backbone, TimmBackbone):
            self.backbone.net.set_grad_checkpointing(enable)
        else:
            self.backbone.activation_checkpointing = enable

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
        num_classes: number of logits; 0 for a network that returns the pooled features.
        drop_rate: of the dropout before the head.
        global_pool: "avg" for the mean of the tokens; "" for none, so that the head works on every token.

    Attributes:
        head_hidden_size: number of pooled features, the input of the head.
    """

    def __init__(
        self,
        backbone: Backbone | TimmBackbone,
        width: int,
        num_classes: int,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head_hidden_size = width
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.global_pool = global_pool
        self.head_drop = nn.Dropout(drop_rate)
        self.head = _classifier(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, num_classes) of images (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the features before pooling: the tokens (B, N, C) of the last stage, or what timm's model has."""
        if isinstance(self.backbone, TimmBackbone):
            return self.backbone.features(images)
        return self.backbone(images)[-1].features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the logits of the features of `forward_features`; with `pre_logits` what the head gets."""
        if isinstance(self.backbone, TimmBackbone):
            features = self.backbone.pool_features(features)
        elif self.global_pool:
            features = features.mean(1)
        features = self.head_drop(features)
        return features if pre_logits else self.head(features)

    def get_classifier(self) -> nn.Module:
        """The last layer; an identity if there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a newly initialised one; `config` changes with it.

        Args:
            num_classes: number of logits; 0 for a network that returns the pooled features.
            global_pool: "avg" or ""; None keeps the present one.

        Raises:
            UserError: a value is wrong.
        """
        from tcformer.models.factory import config_options

        pooling = self.global_pool if global_pool is None else global_pool
        changed = {**self.config["options"], "num_classes": num_classes, "global_pool": pooling}
        self.config["options"] = config_options(self.config["variant"], self.config["task"], changed)
        self.num_classes, self.global_pool = num_classes, pooling
        parameter = next(self.parameters())
        self.head = _classifier(self.head_hidden_size, num_classes).to(parameter.device, parameter.dtype)
        self.head.apply(init_weights).train(self.training)


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
    """The feature maps of the stages, for example for a detector.

    Args:
        backbone: of TCFormer, or of timm with maps as output.
        out_indices: the stages, see `tcformer.models.timm_conventions.stage_indices`.
    """

    def __init__(self, backbone: Backbone | TimmBackbone, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_indices = sorted(set(stage_indices(out_indices, len(backbone.widths))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute a map (B, C, h, w) of each stage, finest first, of images (B, in_chans, H, W)."""
        return [m for index, m in enumerate(self.maps(images)) if index in self.out_indices]

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and strides of the returned maps."""
        return FeatureInfo(info for info in super().feature_info if info["index"] in self.out_indices)


def _classifier(width: int, num_classes: int) -> nn.Module:
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


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

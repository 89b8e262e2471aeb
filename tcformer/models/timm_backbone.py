"""Backbones of the timm library, as baselines for TCFormer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tcformer.errors import UserError

PREFIX = "timm/"
_FINEST_STRIDE = 4

#: Output of a backbone that a task uses: pooled features, the maps of all stages, or only the finest map.
Output = Literal["pooled", "maps", "finest"]


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    Args:
        name: timm's name of the model, such as "resnet50", "hrnet_w32", "pvt_v2_b2".
        output: the output that is used. Layers that only other outputs need are removed.
        pretrained: download timm's ImageNet weights and start from them.
        drop_path_rate: of stochastic depth, for models that have it.
        in_chans: channels of the images.

    Attributes:
        widths: channels of the maps, finest first.
        strides: image pixels for each pixel of the maps, finest first.
        num_features: number of pooled features.
        indices: the maps among those of timm's `forward_intermediates`.

    Raises:
        UserError: timm is not installed or does not have the model, the model has no stochastic depth or no maps, or
            its weights cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        output: Output,
        pretrained: bool = False,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.net = _create(name, pretrained, drop_path_rate, in_chans)
        self.in_chans = in_chans
        self._name = name
        self._multiple = 32 if name.startswith("hrnet") else 1  # HRNet adds maps of all its branches
        self.num_features: int = self.net.head_hidden_size
        info: list[dict[str, Any]] = list(self.net.feature_info)
        self.indices = [i for i, stage in enumerate(info) if stage["reduction"] >= _FINEST_STRIDE]
        if not self.indices:
            raise UserError(f"timm's model '{name}' has no feature maps of stride 4 or more; choose another backbone")
        if len({stage["reduction"] for stage in info}) == 1:  # a plain vision transformer: all maps have one size
            self.indices = self.indices[-1:]
        self.strides: list[int] = [info[i]["reduction"] for i in self.indices]
        self.widths: list[int] = [info[i]["num_chs"] for i in self.indices]
        if output != "pooled" and name.startswith("hrnet"):
            self.widths = list(self.net.stage4_cfg["num_channels"])
            _remove_hrnet_layers(self.net, only_finest=output == "finest")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute a map (B, C, h, w) of each stage, finest first, of normalised images (B, in_chans, H, W)."""
        return self._run(images, partial(self.net.forward_intermediates, indices=self.indices, intermediates_only=True))

    def intermediates(self, images: Tensor, stages: Sequence[int], *options: object) -> Any:
        """Call timm's `forward_intermediates` for some of the maps, counted from 0, with its other arguments."""
        chosen = [self.indices[stage] for stage in stages]
        return self._run(images, lambda images: self.net.forward_intermediates(images, chosen, *options))

    def features(self, images: Tensor) -> Tensor:
        """Compute the features before pooling, in the layout of the model, of normalised images (B, in_chans, H, W)."""
        return self._run(images, self.net.forward_features)

    def pool_features(self, features: Tensor) -> Tensor:
        """Compute the input (B, num_features) of timm's classifier from its features."""
        return self.net.forward_head(features)

    def _run(self, images: Tensor, net: Callable[[Tensor], Any]) -> Any:
        """Apply the network, and turn its complaint about the size of the images into a UserError."""
        self._check(images)
        if torch.compiler.is_compiling():
            return net(images)
        try:
            return net(images)
        except (AssertionError, RuntimeError) as error:
            about = self.net.pretrained_cfg
            size = tuple(about.get("input_size", ()))[1:]
            fixed = about.get("fixed_input_size") and size != tuple(images.shape[2:])
            if not fixed and isinstance(error, RuntimeError):  # for instance, no memory
                raise
            raise UserError(
                f"{PREFIX}{self._name} does not accept images of {images.shape[2]} x {images.shape[3]} pixels "
                f"({error}): expected {' x '.join(map(str, size))}; choose that input_size, or another backbone"
            ) from error

    def _check(self, images: Tensor) -> None:
        if images.shape[2] % self._multiple or images.shape[3] % self._multiple:
            raise UserError(
                f"HRNet expects images whose sides are multiples of {self._multiple}, found {images.shape[2]} x "
                f"{images.shape[3]}; choose another input_size"
            )


def _create(name: str, pretrained: bool, drop_path_rate: float, in_chans: int) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"the backbone {PREFIX}{name} needs the package timm; install it with `pip install timm`"
        ) from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5] or ["resnet50", "hrnet_w32", "pvt_v2_b2"]
        raise UserError(f"timm has no model '{name}'; it has, for example, {', '.join(near)}")
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    options |= {"in_chans": in_chans} if in_chans != 3 else {}
    # Some models are built for one image size. With these options they accept any size, with the same parameters.
    if name.startswith(("vit", "deit")):
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    elif name.startswith("swin_"):
        options |= {"strict_img_size": False}
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        raise UserError(
            f"timm's model '{name}' has no option {', '.join(options)} ({error}); set drop_path to 0 and in_chans to 3"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"the pretrained weights of {PREFIX}{name} cannot be downloaded ({reason}); set network.pretrained to "
            "false, or run once on a machine with access to the Hugging Face hub and copy its cache"
        ) from error
    if not all(hasattr(model, part) for part in ("forward_intermediates", "feature_info", "head_hidden_size")):
        raise UserError(f"timm's model '{name}' has no feature maps; choose another backbone")
    return model


def _remove_hrnet_layers(net: Any, only_finest: bool) -> None:
    """Remove the layers that only HRNet's classifier needs, and if `only_finest` those of the coarser maps."""
    net.incre_modules = net.downsamp_modules = net.final_layer = None
    if only_finest:
        last = net.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]

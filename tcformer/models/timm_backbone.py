"""Backbones of the timm library, as baselines beside TCFormer: images to the feature maps of their stages."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from tcformer.errors import UserError

PREFIX = "timm/"
_FINEST_STRIDE = 4

#: What a task takes from a backbone: pooled features, the maps of all its stages, or the finest map alone.
Taken = Literal["pooled", "maps", "finest"]


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    Args:
        name: timm's name of the model, such as "resnet50", "hrnet_w32", "pvt_v2_b2".
        taken: what is wanted of it; layers that serve something else only are left out.
        pretrained: start from timm's ImageNet weights, downloading them.
        drop_path_rate: stochastic depth, for models that have it.

    Attributes:
        widths: channels of the maps, finest first.
        strides: pixels of the image for a pixel of each map.
        num_features: channels of the pooled features.

    Raises:
        UserError: timm is not installed, knows no such model, the model has no stochastic depth or no maps, or
            its weights cannot be downloaded.
    """

    def __init__(self, name: str, taken: Taken, pretrained: bool = False, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.net = _create(name, pretrained, drop_path_rate)
        self._multiple = 32 if name.startswith("hrnet") else 1  # its branches are added: their sides must fit
        self.num_features: int = self.net.head_hidden_size
        info: list[dict[str, Any]] = list(self.net.feature_info)
        self._indices = [i for i, stage in enumerate(info) if stage["reduction"] >= _FINEST_STRIDE]
        if len({stage["reduction"] for stage in info}) == 1:  # a plain vision transformer has the same map throughout
            self._indices = self._indices[-1:]
        self.strides: list[int] = [info[i]["reduction"] for i in self._indices]
        self.widths: list[int] = [info[i]["num_chs"] for i in self._indices]
        if taken != "pooled" and name.startswith("hrnet"):
            self.widths = list(self.net.stage4_cfg["num_channels"])
            _leave_out_hrnet_layers(self.net, finest_alone=taken == "finest")

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to a map (B, C, h, w) of each stage, finest first."""
        self._check(images)
        return self.net.forward_intermediates(images, indices=self._indices, intermediates_only=True)

    def pool(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to the (B, num_features) from which timm's classifier decides."""
        self._check(images)
        return self.net(images)

    def _check(self, images: Tensor) -> None:
        if images.shape[2] % self._multiple or images.shape[3] % self._multiple:
            raise UserError(
                f"HRNet expects images whose sides {self._multiple} divides, but got {images.shape[2]}x"
                f"{images.shape[3]}; choose another input_size."
            )


def _create(name: str, pretrained: bool, drop_path_rate: float) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"The backbone {PREFIX}{name} needs the package timm; install it with `pip install timm`."
        ) from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5] or ["resnet50", "hrnet_w32", "pvt_v2_b2"]
        raise UserError(f"timm has no model '{name}'; it has, for instance, {', '.join(near)}.")
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    # Some are made for one image size; these options let them take any, with the same parameters.
    if name.startswith(("vit", "deit")):
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    elif name.startswith("swin_"):
        options |= {"strict_img_size": False}
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        raise UserError(
            f"timm's model '{name}' does not take {', '.join(options)} ({error}); set drop_path to 0."
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"The pretrained weights of {PREFIX}{name} could not be had ({reason}): set network.pretrained to false, "
            "or run once on a machine that reaches the Hugging Face hub and copy its cache."
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"timm's model '{name}' gives no feature maps; choose another backbone.")
    return model


def _leave_out_hrnet_layers(net: Any, finest_alone: bool) -> None:
    """Drop what only HRNet's classifier uses, and what makes the coarser maps if they are not wanted."""
    net.incre_modules = net.downsamp_modules = net.final_layer = None
    if finest_alone:
        last = net.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]

"""What users of the timm library expect of every network, and timm's own way to build ours.

    import timm, tcformer
    tcformer.register_with_timm()
    timm.create_model("tcformer_light", num_classes=10)

The conventions hold without timm; only `register_with_timm` needs it. They were compared with timm 1.0's pvt_v2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import nn

from tcformer.data.images import IMAGE_MEAN, IMAGE_STD
from tcformer.errors import UserError
from tcformer.models.variants import VARIANTS

#: (height, width) of the images of each task in the paper.
_SIZES: Final = {"wholebody": (256, 192), "face": (256, 256)}
_IMAGE_SIZE: Final = (224, 224)
_STRIDE: Final = 32  # of the last stage
_CLASSIFIERS: Final = {
    "imagenet": "head",
    **dict.fromkeys(("wholebody", "face", "keypoints"), "keypoint_head.final_layer"),
}
# timm's create_model passes these to every entry point. They are for downloads, of which there are none.
_OF_DOWNLOADS: Final = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


class FeatureInfo(list[dict[str, Any]]):
    """The feature maps of a network: a list of dicts as `feature_info` of timm's models, with timm's methods.

    Each dict has "num_chs" (channels), "reduction" (image pixels for each pixel of the map), "module" and "index" (of
    the stage, from 0).
    """

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [info["num_chs"] for info in self]

    def reduction(self) -> list[int]:
        """Image pixels for each pixel of each map."""
        return [info["reduction"] for info in self]

    def module_name(self) -> list[str]:
        """The module whose output each map is."""
        return [info["module"] for info in self]

    def get_dicts(self) -> list[dict[str, Any]]:
        """The dicts themselves."""
        return list(self)


def stage_indices(indices: int | Sequence[int] | None, num_stages: int) -> list[int]:
    """The stages that timm's argument `indices` (or `out_indices`) stands for.

    Args:
        indices: the last n stages; or stages counted from 0, negative ones from the end; None for all.
        num_stages: number of stages.

    Raises:
        UserError: there is no such stage.
    """
    if indices is None:
        return list(range(num_stages))
    is_number = isinstance(indices, int) and not isinstance(indices, bool)
    chosen = list(range(-indices, 0)) if is_number else indices  # type: ignore[operator]
    if not (
        isinstance(chosen, list | tuple)
        and chosen
        and all(isinstance(i, int) and not isinstance(i, bool) and -num_stages <= i < num_stages for i in chosen)
    ):
        raise UserError(
            f"indices: expected a number of stages from 1 to {num_stages}, or a list of stages from {-num_stages} to "
            f"{num_stages - 1}, found {indices!r:.80}; correct it"
        )
    return [i % num_stages for i in chosen]


def pretrained_cfg(model: nn.Module, config: dict[str, Any], in_chans: int) -> dict[str, Any]:
    """The dict that timm calls `pretrained_cfg`: how images are prepared, and which layers come first and last.

    `timm.data.resolve_model_data_config` reads it.
    """
    task = config["task"]
    size = _SIZES.get(task, _IMAGE_SIZE)
    first = "backbone.patch_embed1.proj" if config["variant"] in VARIANTS else None
    return {
        "url": "",
        "architecture": config["variant"],
        "num_classes": getattr(model, "num_classes", 0),
        "input_size": (in_chans, *size),
        "pool_size": tuple(side // _STRIDE for side in size),
        "fixed_input_size": False,
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": IMAGE_MEAN,
        "std": IMAGE_STD,
        "first_conv": first,
        "classifier": _CLASSIFIERS.get(task),
        "license": "apache-2.0",
    }


def register_with_timm() -> list[str]:
    """Register the variants with timm, so that `timm.create_model` and `timm.list_models` know them.

    `timm.create_model(name, ...)` then does what `tcformer.create_model(name, ...)` does, with the same options. There
    are no weights to download: `pretrained=True` raises UserError.

    Returns:
        The registered names.

    Raises:
        UserError: timm is not installed.
    """
    from timm.models import is_model, register_model

    for name in VARIANTS:
        if not is_model(name):
            register_model(_entry_point(name))
    return list(VARIANTS)


def _entry_point(name: str) -> Callable[..., nn.Module]:
    from tcformer.models.factory import create_model

    def entry_point(pretrained: bool = False, **options: object) -> nn.Module:
        own: dict[str, Any] = {key: value for key, value in options.items() if key not in _OF_DOWNLOADS}
        return create_model(name, "imagenet", pretrained=pretrained, **own)

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = f"`tcformer.create_model` for {name}."
    entry_point.__module__ = f"{__name__}.entry_points"  # timm adds names to `__all__` of this module
    sys.modules.setdefault(entry_point.__module__, type(sys)(entry_point.__module__))
    return entry_point

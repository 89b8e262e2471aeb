"""The depth of each parameter in a network, by which layer-wise learning-rate decay orders them.

The numbers are those of BEiT (github.com/microsoft/unilm, beit/optim_factory.py): 0 for the patch embedding, then one
for each block, and the last one for neck and head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tcformer.errors import UserError
from tcformer.models.backbone import NUM_STAGES, Backbone
from tcformer.models.networks import Network
from tcformer.models.timm_backbone import PREFIX, TimmBackbone

_BACKBONE = "backbone."
#: Of a group of parameters: a pattern, or several with their places in the order, as timm has them.
_Patterns: TypeAlias = str | Sequence[tuple[str, tuple[int, ...] | None]] | None


def layer_depths(model: Network) -> dict[str, int]:
    """Compute the depth of each parameter of a network.

    Returns:
        Name of the parameter -> depth: from 0 for the first layer of the backbone, up to the largest for all parameters
        that are not the backbone's. The backbones of timm are divided as timm does (`group_matcher`).

    Raises:
        UserError: timm does not divide the backbone into layers.
    """
    backbone = model.backbone
    names = [name for name, _ in model.named_parameters()]
    inner = [name.removeprefix(_BACKBONE) for name in names if name.startswith(_BACKBONE)]
    if isinstance(backbone, TimmBackbone):
        depths = _timm_depths(backbone, model.config["variant"])
    else:
        patterns = [(re.compile(pattern), depth) for pattern, depth in _patterns(backbone, coarse=False)]
        depths = {name: next(depth for pattern, depth in patterns if pattern.match(name)) for name in inner}
    last = max(depths.values()) + 1
    return {name: depths[name.removeprefix(_BACKBONE)] if name.startswith(_BACKBONE) else last for name in names}


def group_matcher(model: Network, coarse: bool) -> dict[str, _Patterns]:
    """See `Network.group_matcher`."""
    backbone = model.backbone
    if isinstance(backbone, TimmBackbone):
        patterns = _timm_matcher(backbone, model.config["variant"])(coarse=coarse)
        return {group: _with_prefix(each) for group, each in patterns.items()}
    (stem, _), *others = _patterns(backbone, coarse)
    return {
        "stem": rf"^backbone\.{stem}",
        "blocks": [(rf"^backbone\.{pattern}", (depth,)) for pattern, depth in others],
    }


def _with_prefix(patterns: _Patterns) -> _Patterns:
    """A pattern of timm, or several with their places, for names in our networks."""
    if isinstance(patterns, str):
        return rf"^backbone\.net\.(?:{patterns.removeprefix('^').replace('|^', '|')})"
    return None if patterns is None else [(str(_with_prefix(pattern)), place) for pattern, place in patterns]


def _patterns(backbone: Backbone, coarse: bool) -> list[tuple[str, int]]:
    """Patterns of names in a backbone with the depth: 0 for the patch embedding, 1 for the first block, and so on.

    The norm after a stage belongs to its last block, a CTM to the first block of the stage that it begins.

    Args:
        backbone: of TCFormer.
        coarse: the depth is that of the stage: 1 for the first stage.
    """
    blocks, patterns = backbone.variant.depths, [(r"patch_embed1\.", 0)]
    for stage in range(1, NUM_STAGES + 1):
        before = stage - 1 if coarse else sum(blocks[: stage - 1])
        last = stage if coarse else sum(blocks[:stage])
        patterns.append((rf"ctm{stage - 1}\.", before + 1))
        for block in range(blocks[stage - 1]):
            patterns.append((rf"block{stage}\.{block}\.", stage if coarse else before + block + 1))
        patterns.append((rf"norm{stage}\.", last))
    return patterns


def _timm_matcher(backbone: TimmBackbone, variant: str) -> Callable[..., dict[str, _Patterns]]:
    """The method `group_matcher` of timm's model. Raises UserError if it has none."""
    net: Any = backbone.net
    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"layer_decay: timm does not divide {variant} into layers (the model has no group_matcher); expected a "
            f"TCFormer or a model such as {PREFIX}resnet50, {PREFIX}hrnet_w32 or {PREFIX}pvt_v2_b2; set "
            "training.optimizer.layer_decay to null"
        )
    matcher: Callable[..., dict[str, _Patterns]] = net.group_matcher
    return matcher


def _timm_depths(backbone: TimmBackbone, variant: str) -> dict[str, int]:
    from timm.models import group_parameters

    matcher = _timm_matcher(backbone, variant)(coarse=False)
    depths: dict[str, int] = group_parameters(backbone.net, matcher, reverse=True)
    return {f"net.{name}": depth for name, depth in depths.items()}

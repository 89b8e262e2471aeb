"""The depth of each parameter in a network, by which layer-wise learning-rate decay orders them.

The numbers are those of BEiT (github.com/microsoft/unilm, beit/optim_factory.py): 0 for the patch embedding, then one
for each block, and the last one for neck and head.
"""

from __future__ import annotations

import re
from typing import Any

from tcformer.errors import UserError
from tcformer.models.backbone import Backbone
from tcformer.models.networks import Network
from tcformer.models.timm_backbone import PREFIX, TimmBackbone

_BACKBONE = "backbone."


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
        depths = {name: _tcformer_depth(name, backbone) for name in inner}
    last = max(depths.values()) + 1
    return {name: depths[name.removeprefix(_BACKBONE)] if name.startswith(_BACKBONE) else last for name in names}


def _tcformer_depth(name: str, backbone: Backbone) -> int:
    """0 for the patch embedding, 1 for the first block, and so on through all stages.

    The norm after a stage belongs to its last block, a CTM to the first block of the stage that it begins.
    """
    found = re.match(r"(patch_embed|block|norm|ctm)(\d)\.(?:(\d+)\.)?", name)
    assert found, name
    module, stage = found[1], int(found[2])
    blocks = backbone.variant.depths
    if module == "patch_embed":
        return 0
    if module == "block":
        return sum(blocks[: stage - 1]) + int(found[3]) + 1
    return sum(blocks[:stage]) + (module == "ctm")


def _timm_depths(backbone: TimmBackbone, variant: str) -> dict[str, int]:
    net: Any = backbone.net
    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"layer_decay: timm does not divide {variant} into layers (the model has no group_matcher); expected a "
            f"TCFormer or a model such as {PREFIX}resnet50, {PREFIX}hrnet_w32 or {PREFIX}pvt_v2_b2; set "
            "training.optimizer.layer_decay to null"
        )
    from timm.models import group_parameters

    depths: dict[str, int] = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    return {f"net.{name}": depth for name, depth in depths.items()}

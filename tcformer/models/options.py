"""What `create_model` lets a person choose, checked in one place, with the nearest right name in the message."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tcformer.models.variants import VARIANTS
from tcformer.parameters import parameters

TASKS = ("imagenet", "wholebody", "face", "mesh", "features")
#: How a stage gets its quarter of the tokens: clusters of the density peaks, of the most important tokens, a strided
#: convolution on the fixed grid, or density peaks within parts of the image.
TOKEN_REDUCTIONS = ("ctm", "ctm_topk", "conv", "local_ctm")
#: From stages to heat maps: the network's own; MTA; SimpleBaseline's deconvolutions; HRNet's finest map; HRNetV2's.
NECKS = ("auto", "mta", "deconv", "finest_map", "all_maps")


@parameters
class NetworkOptions:
    """The backbone, the same for a recipe's pretraining and fine-tunings.

    Raises:
        ValueError: an unknown name, or parts that do not nest.
    """

    #: a name of `tcformer.list_models()`, or timm/ and a name of timm's, such as timm/resnet50
    backbone: str
    #: how stages get fewer tokens, one of `TOKEN_REDUCTIONS`; TCFormer only
    token_reduction: str
    #: local_ctm: image parts along each side within which the three CTMs cluster
    local_parts: tuple[int, int, int]
    #: start from timm's ImageNet weights; timm's backbones only
    pretrained: bool
    #: compute a block's activations again in the backward pass instead of keeping them; TCFormer only
    activation_checkpointing: bool

    def __post_init__(self) -> None:
        check_name("backbone", self.backbone, list(VARIANTS), other_prefix="timm/")
        check_name("token_reduction", self.token_reduction, TOKEN_REDUCTIONS)
        check_parts(self.local_parts)
        if self.pretrained and not self.backbone.startswith("timm/"):
            raise ValueError(
                f"pretrained is for timm's backbones, not for {self.backbone}; give a weights file as initial instead"
            )

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of `create_model` that these are."""
        own = {
            "token_reduction": self.token_reduction,
            "local_parts": self.local_parts,
            "activation_checkpointing": self.activation_checkpointing,
        }
        return {"pretrained": self.pretrained} if self.backbone.startswith("timm/") else own


def check_name(kind: str, name: str, known: Sequence[str], other_prefix: str | None = None) -> None:
    """Raise ValueError, with the nearest of the `known` names, unless `name` is one or has the other prefix."""
    if name in known or (other_prefix and name.startswith(other_prefix)):
        return
    nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise ValueError(f"There is no {kind} '{name}'; did you mean '{nearest}'? There are: {', '.join(known)}.")


def check_parts(parts: Sequence[int]) -> None:
    """Raise ValueError unless there are three numbers of parts, each a divisor of the one before."""
    nest = len(parts) == 3 and all(isinstance(n, int) and n >= 1 for n in parts)
    if not nest or parts[0] % parts[1] or parts[1] % parts[2]:
        raise ValueError(
            f"local_parts must be three whole numbers, each dividing the one before, such as [4, 2, 1], but it is "
            f"{list(parts)}."
        )

"""The options of `create_model` and their checks. Error messages suggest the nearest correct name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tcformer.models.variants import VARIANTS
from tcformer.parameters import parameters

TASKS = ("imagenet", "wholebody", "face", "mesh", "features")
#: How the tokens of a stage are reduced to a quarter: clusters around density peaks; clusters around the most important
#: tokens; a strided convolution on a fixed grid; clusters around density peaks within parts of the image.
TOKEN_REDUCTIONS = ("ctm", "ctm_topk", "conv", "local_ctm")
#: Necks between the stages and the heat maps: the usual one of the network; MTA; SimpleBaseline's deconvolutions;
#: HRNet's finest map; all maps, as in HRNetV2.
NECKS = ("auto", "mta", "deconv", "finest_map", "all_maps")

_MOST_PARTS = 1024  # more than the tokens along a side of any image that is usual


@parameters
class NetworkOptions:
    """Options of the backbone, the same for pretraining and fine-tuning.

    Raises:
        ValueError: a name is unknown, or the parts do not divide each other.
    """

    #: a name of `tcformer.list_models()`, or timm/ and the name of a model of timm, such as timm/resnet50
    backbone: str
    #: how the tokens are reduced between stages, one of `TOKEN_REDUCTIONS`; TCFormer only
    token_reduction: str
    #: with local_ctm, image parts along each side within which each of the three CTMs clusters
    local_parts: tuple[int, int, int]
    #: start from timm's ImageNet weights; timm's backbones only
    pretrained: bool
    #: recompute the activations of a block in the backward pass instead of storing them; TCFormer only
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
        """The corresponding options of `create_model`."""
        own = {
            "token_reduction": self.token_reduction,
            "local_parts": self.local_parts,
            "activation_checkpointing": self.activation_checkpointing,
        }
        return {"pretrained": self.pretrained} if self.backbone.startswith("timm/") else own


def check_name(kind: str, name: str, known: Sequence[str], other_prefix: str | None = None) -> None:
    """Check that a name is known.

    Args:
        kind: what the name is of, for the message.
        name: to check.
        known: the correct names.
        other_prefix: names with this prefix are correct as well.

    Raises:
        ValueError: the name is not known. The message suggests the nearest known name.
    """
    if not isinstance(name, str):
        raise ValueError(f"{kind}: expected one of {', '.join(known)}, found {name!r:.80}")
    if name in known or (other_prefix and name.startswith(other_prefix)):
        return
    nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise ValueError(f"there is no {kind} '{name}'; did you mean '{nearest}'? There are: {', '.join(known)}")


def check_parts(parts: Sequence[int]) -> None:
    """Raise ValueError unless `parts` are three integers, each a divisor of the one before."""
    is_list = isinstance(parts, list | tuple)
    nest = is_list and len(parts) == 3 and all(isinstance(n, int) and 1 <= n <= _MOST_PARTS for n in parts)
    if not nest or parts[0] % parts[1] or parts[1] % parts[2]:
        raise ValueError(
            f"local_parts: expected three integers, each a divisor of the one before, such as [4, 2, 1], found "
            f"{list(parts) if is_list else parts!r:.200}"
        )

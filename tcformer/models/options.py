"""The options of `create_model` and their checks. Error messages suggest the nearest correct name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Any

from tcformer.models.variants import VARIANTS
from tcformer.parameters import parameters

TASKS = ("imagenet", "wholebody", "face", "mesh", "keypoints", "features")
#: How the tokens of a stage are reduced to a quarter: clusters around density peaks; clusters around the most important
#: tokens; a strided convolution on a fixed grid; clusters around density peaks within parts of the image; everything as
#: with clusters, but these are the 2x2 blocks of the grid.
TOKEN_REDUCTIONS = ("ctm", "ctm_topk", "conv", "local_ctm", "ctm_grid")
#: Necks between the stages and the heat maps: the usual one of the network; MTA; MTA with keys and values reduced along
#: the clusters; SimpleBaseline's deconvolutions; HRNet's finest map; all maps, as in HRNetV2.
NECKS = ("auto", "mta", "cr_mta", "deconv", "finest_map", "all_maps")
#: Token reductions whose clusters depend on the features.
_CLUSTERINGS = ("ctm", "ctm_topk", "local_ctm")


@dataclass(frozen=True)
class ReductionOptions:
    """How the tokens are reduced between stages.

    Attributes:
        token_reduction: one of `TOKEN_REDUCTIONS`.
        place_weight: weight of the place in the distance of two tokens when they are clustered (see
            `tcformer.models.ctm.with_place`); 0: features alone, as in the paper.
        token_place: add a learned linear function of the place and extent of each merged token to its features.
        cluster_after: share of a training in which the clusters are 2x2 blocks of the grid, as with ctm_grid, before
            the tokens are clustered. The training loop calls `Network.set_progress`.

    Raises:
        ValueError: an option is out of range or does not fit the token reduction.
    """

    token_reduction: str = "ctm"
    place_weight: float = 0.0
    token_place: bool = False
    cluster_after: float = 0.0

    def __post_init__(self) -> None:
        check_name("token_reduction", self.token_reduction, TOKEN_REDUCTIONS)
        check_number("place_weight", self.place_weight)
        check_number("cluster_after", self.cluster_after, below=1)
        clusters = self.token_reduction in _CLUSTERINGS
        for name, value in (("place_weight", self.place_weight), ("cluster_after", self.cluster_after)):
            if value and not clusters:
                raise ValueError(
                    f"{name} is {value}, but {self.token_reduction} does not cluster features; set it to 0, or "
                    f"token_reduction to one of {', '.join(_CLUSTERINGS)}"
                )
        if self.token_place and self.token_reduction == "conv":
            raise ValueError("token_place is for merged tokens, but conv merges none; set it to false")


_MOST_PARTS = 1024  # more than the tokens along a side of any image that is usual


@parameters
class NetworkOptions:
    """Options of the backbone, the same for pretraining and fine-tuning.

    Raises:
        ValueError: a name is unknown, the parts do not divide each other, or an option does not fit the others.
    """

    #: a name of `tcformer.list_models()`, or timm/ and the name of a model of timm, such as timm/resnet50
    backbone: str
    #: how the tokens are reduced between stages, one of `TOKEN_REDUCTIONS`; TCFormer only
    token_reduction: str
    #: with local_ctm, image parts along each side within which each of the three CTMs clusters
    local_parts: tuple[int, int, int]
    #: weight of the place in the distance of tokens that are clustered, see `ReductionOptions`; TCFormer only
    place_weight: float
    #: add a learned function of place and extent to the features of merged tokens; TCFormer only
    token_place: bool
    #: share of each training in which 2x2 blocks of the grid take the place of clusters; TCFormer only
    cluster_after: float
    #: start from timm's ImageNet weights; timm's backbones only
    pretrained: bool
    #: recompute the activations of a block in the backward pass instead of storing them; TCFormer only
    activation_checkpointing: bool

    def __post_init__(self) -> None:
        check_name("backbone", self.backbone, list(VARIANTS), other_prefix="timm/")
        ReductionOptions(self.token_reduction, self.place_weight, self.token_place, self.cluster_after)
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
            "place_weight": self.place_weight,
            "token_place": self.token_place,
            "cluster_after": self.cluster_after,
            "activation_checkpointing": self.activation_checkpointing,
        }
        return {"pretrained": self.pretrained} if self.backbone.startswith("timm/") else own


#: What to do instead of options of timm's models that TCFormer does not have.
_HINTS = {
    "activation": "the activation is GELU; remove the option",
    "norm_layer": "the norm is LayerNorm; remove the option",
    "img_size": "images of any size of at least 29 x 29 pixels are accepted; remove the option",
    **dict.fromkeys(
        ("pretrained", "checkpoint_path", "pretrained_cfg"),
        "there are no weights to download; read a file by tcformer.load_model, or a checkpoint of another trainer by "
        "tcformer.load_released_weights",
    ),
    **dict.fromkeys(
        ("attn_drop_rate", "proj_drop_rate", "proj_drop", "attn_drop"),
        "the blocks have no dropout but stochastic depth; did you mean 'drop_path_rate', or 'drop_rate' for the head?",
    ),
    **dict.fromkeys(
        ("grad_checkpointing", "checkpointing", "use_checkpoint"),
        "did you mean 'activation_checkpointing', or the method set_grad_checkpointing?",
    ),
    **dict.fromkeys(
        ("depths", "embed_dims", "num_heads", "mlp_ratios", "sr_ratios", "qkv_bias", "linear"),
        f"sizes are those of the variant; choose one of {', '.join(VARIANTS)}",
    ),
    **dict.fromkeys(("device", "dtype"), "move the network with model.to(...), or build it in a `with torch.device`"),
    **dict.fromkeys(
        ("scriptable", "exportable", "no_jit"), "tcformer.export_onnx and tcformer.export_program export networks"
    ),
    **dict.fromkeys(("in_channels", "in_channel", "channels"), "did you mean 'in_chans'?"),
    **dict.fromkeys(("dropout", "dropout_rate"), "did you mean 'drop_rate'?"),
    **dict.fromkeys(("drop_path", "stochastic_depth", "droppath"), "did you mean 'drop_path_rate'?"),
}


def hint_for(option: str) -> str | None:
    """What to do instead of an option of other libraries; None if nothing is known of it."""
    return _HINTS.get(option)


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


def check_number(name: str, value: object, below: float = inf) -> None:
    """Raise ValueError unless `value` is a number of at least 0 and below `below`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < below:
        limit = f" and below {below}" if below < inf else ""
        raise ValueError(f"model option {name}: expected a number of at least 0{limit}, found {value!r}")


def check_parts(parts: Sequence[int]) -> None:
    """Raise ValueError unless `parts` are three integers, each a divisor of the one before."""
    is_list = isinstance(parts, list | tuple)
    nest = is_list and len(parts) == 3 and all(isinstance(n, int) and 1 <= n <= _MOST_PARTS for n in parts)
    if not nest or parts[0] % parts[1] or parts[1] % parts[2]:
        raise ValueError(
            f"local_parts: expected three integers, each a divisor of the one before, such as [4, 2, 1], found "
            f"{list(parts) if is_list else parts!r:.200}"
        )

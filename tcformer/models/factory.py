"""Build networks by name."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any

from tcformer.data.wholebody.keypoints import SUBSETS, subset
from tcformer.errors import UserError
from tcformer.models import options as checks
from tcformer.models.backbone import Backbone
from tcformer.models.networks import (
    Classifier,
    FeatureExtractor,
    MeshRegressor,
    Network,
    PoseEstimator,
    initialise,
    make_neck,
)
from tcformer.models.patch_norm import DEFAULT_EPS, set_patch_norm_eps
from tcformer.models.patch_norm import OPTION as PATCH_NORM_EPS
from tcformer.models.timm_backbone import PREFIX, Output, TimmBackbone
from tcformer.models.variants import VARIANTS, Variant

_BACKBONE_OPTIONS: dict[str, Any] = {"drop_path_rate": 0.0, "in_chans": 3}
_TCFORMER_OPTIONS: dict[str, Any] = {
    **asdict(checks.ReductionOptions()),
    "local_parts": (4, 2, 1),
    "activation_checkpointing": False,
    PATCH_NORM_EPS: DEFAULT_EPS,
}
_TIMM_OPTIONS: dict[str, Any] = {"pretrained": False}
_TASK_OPTIONS: dict[str, dict[str, Any]] = {
    "imagenet": {"num_classes": 1000, "drop_rate": 0.0, "global_pool": "avg"},
    "wholebody": {"num_keypoints": None, "keypoints": "all", "neck": "auto"},
    "face": {"num_keypoints": 98, "neck": "auto"},
    "mesh": {},
    "keypoints": {"num_keypoints": 17, "points": None, "neck": "auto"},
    "features": {"out_indices": None},
}
#: Options that are in the config of a network only if they are not the default, so that older versions read the others.
_IN_CONFIG_IF_CHANGED = ("in_chans", "drop_rate", "global_pool", "out_indices", PATCH_NORM_EPS)
#: Options that affect only how a network is built or trained. They are not part of its config.
NOT_IN_CONFIG = ("pretrained", "activation_checkpointing", "cluster_after")
_SWITCHES = ("pretrained", "activation_checkpointing", "token_place")
_MOST_CHANNELS = 4096  # of images
_MOST_OUTPUTS = 1_000_000  # of a head: more are a mistake, whose weights would fill the memory


def list_models(filter: str = "") -> list[str]:
    """The names of the TCFormer variants, smallest first. Any backbone of timm is a variant as well, as timm/<name>.

    Args:
        filter: a pattern such as "tcformer_l*"; "" for all.
    """
    return [name for name in VARIANTS if fnmatch(name, filter or "*")]


def create_model(variant: str, task: str = "imagenet", **options: Any) -> Network:
    """Build a network with newly initialised weights.

    Args:
        variant: a name from `list_models()`, or "timm/" and the name of a backbone of the timm library.
        task: determines the output for images (B, 3, H, W):
            "imagenet": class logits (B, num_classes);
            "wholebody": heat maps (B, num_keypoints, H / 4, W / 4), sides rounded up;
            "face": the same for 98 landmarks;
            "keypoints": the same for any points, as of a dataset of your own;
            "mesh": a `MeshPrediction` of SMPL rotations (B, 24, 3, 3), shape (B, 10) and camera (B, 3);
            "features": a list of the feature maps (B, C, h, w) of the stages, finest first; `features_only=True`, as
            timm calls it, is the same.
        options: for every network `drop_path_rate` (default 0), the probability of dropping the residual branches of
            the last block in training, and `in_chans` (default 3), the channels of the images. TCFormer:
            `token_reduction` (default "ctm", see `TOKEN_REDUCTIONS`), `local_parts` (default (4, 2, 1)), `place_weight`
            (default 0), `token_place` (default False), `cluster_after` (default 0; see `ReductionOptions`),
            `activation_checkpointing` (default False), `patch_norm_eps` (default 1e-5; mmpose's weights need 1e-6, see
            `tcformer.models.patch_norm`). timm's backbones: `pretrained` (default False). imagenet: `num_classes`
            (default 1000; 0 for the pooled features), `drop_rate` (default 0; dropout before the head), `global_pool`
            (default "avg"; "" for logits of every token; TCFormer only). features: `out_indices` (default: all four
            stages). wholebody: `keypoints` (default "all" 133; "body", "foot", "face", "hand") or any `num_keypoints`.
            face: `num_keypoints` (default 98). keypoints: `num_keypoints` (default 17) and `points` (default None), see
            `PointSet.to_json`. wholebody, face and keypoints: `neck` (default "auto": MTA for TCFormer, the finest map
            for HRNet, deconvolutions for other backbones; see `NECKS`).

    Returns:
        The network in training mode. `model.backbone(images)` returns the outputs of the four stages: `Tokens`, or the
        maps of a timm backbone. `model.config` is a dict of variant, task and options from which `create_model`
        rebuilds the network. It can be written as JSON.

    Raises:
        UserError: the variant, the task or an option is unknown, an option is out of range or belongs to another kind
            of network, or timm cannot provide the backbone.
    """
    try:
        if options.pop("features_only", False):
            task = "features"
        checks.check_name("model variant", variant, list(VARIANTS), other_prefix=PREFIX)
        checks.check_name("task", task, checks.TASKS)
        chosen = _complete(variant, task, options)
    except ValueError as error:
        raise UserError(str(error)) from None
    model = _build(variant, task, chosen)
    initialise(model)
    kept = _in_config(variant, task, chosen)
    if isinstance(model, FeatureExtractor) and "out_indices" in kept:
        kept["out_indices"] = model.out_indices
    model.config = {"variant": variant, "task": task, "options": kept}
    set_patch_norm_eps(model, chosen.get(PATCH_NORM_EPS, DEFAULT_EPS))
    return model


def config_options(variant: str, task: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network as its config has them.

    Raises:
        UserError: a name or value is wrong.
    """
    try:
        return _in_config(variant, task, _complete(variant, task, options))
    except ValueError as error:
        raise UserError(str(error)) from None


def _in_config(variant: str, task: str, chosen: dict[str, Any]) -> dict[str, Any]:
    defaults = _defaults(variant, task)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in chosen.items()
        if name not in NOT_IN_CONFIG and not (name in _IN_CONFIG_IF_CHANGED and value == defaults[name])
    }


def _defaults(variant: str, task: str) -> dict[str, Any]:
    own = _TIMM_OPTIONS if variant.startswith(PREFIX) else _TCFORMER_OPTIONS
    return {**_TASK_OPTIONS[task], **_BACKBONE_OPTIONS, **own}


def _complete(variant: str, task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Complete `options` by the defaults and check all values.

    Raises:
        ValueError: an option is unknown or its value is wrong.
    """
    defaults = _defaults(variant, task)
    if not variant.startswith(PREFIX) and options.get("pretrained") is False:
        options = {name: value for name, value in options.items() if name != "pretrained"}
    for name in options:
        if name not in defaults and (hint := checks.hint_for(name)):
            raise ValueError(f"there is no option for {variant} and the task '{task}' called '{name}': {hint}")
        checks.check_name(f"option for {variant} and the task '{task}':", name, list(defaults))
    chosen = {**defaults, **options}
    for name, value in chosen.items():
        _check_value(name, value)
    if variant.startswith(PREFIX) and chosen.get("global_pool", "avg") != "avg":
        raise ValueError(f"model option global_pool: {variant} keeps the pooling of timm; remove the option")
    if "keypoints" in chosen:
        chosen["num_keypoints"] = chosen["num_keypoints"] or len(subset(chosen["keypoints"]))
    if (points := chosen.get("points")) is not None:
        names = points.get("names")
        count = len(names) if isinstance(names, list) else 0
        if count != chosen["num_keypoints"]:
            raise ValueError(
                f"model option points: expected names of {chosen['num_keypoints']} points (num_keypoints), found "
                f"{count}; give the same number"
            )
    if not variant.startswith(PREFIX):
        _reduction(chosen)  # checks these options, also whether they fit together
    if "neck" in chosen:
        chosen["neck"] = _neck(variant, chosen["neck"], chosen.get("token_reduction"))
    return chosen


def _check_value(name: str, value: Any) -> None:
    if name == "points":
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"model option points: expected a description of the points, found {value!r:.80}")
    elif name == "keypoints":
        checks.check_name("set of keypoints", value, list(SUBSETS))
    elif name == "neck":
        checks.check_name("neck", value, checks.NECKS)
    elif name in ("token_reduction", "place_weight", "cluster_after"):
        return  # checked by `ReductionOptions`
    elif name == "local_parts":
        checks.check_parts(value)
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            raise ValueError(f"model option {name}: expected True or False, found {value!r}")
    elif name == "global_pool":
        if value not in ("avg", ""):
            raise ValueError(f"model option global_pool: expected 'avg' or '' (no pooling), found {value!r:.80}")
    elif name == "out_indices":
        return  # checked by the network, which knows its stages
    elif name in ("drop_path_rate", "drop_rate"):
        checks.check_number(name, value, below=1)
    elif name == PATCH_NORM_EPS:
        if not isinstance(value, float) or not 0 < value < 1:
            raise ValueError(f"model option {name}: expected a number above 0 and below 1, found {value!r:.80}")
    elif name == "num_keypoints" and value is None:
        return
    else:
        least, most = 0 if name == "num_classes" else 1, _MOST_CHANNELS if name == "in_chans" else _MOST_OUTPUTS
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            shown = f"{value!r:.80}" if not isinstance(value, int) or abs(value) < 10**80 else "a larger one"
            raise ValueError(f"model option {name}: expected an integer of {least} to {most}, found {shown}")


def _reduction(options: dict[str, Any]) -> checks.ReductionOptions:
    return checks.ReductionOptions(
        token_reduction=options["token_reduction"],
        place_weight=options["place_weight"],
        token_place=options["token_place"],
        cluster_after=options["cluster_after"],
    )


def _neck(variant: str, chosen: str, token_reduction: str | None) -> str:
    """Replace "auto" by the neck that it stands for. Raises ValueError if the neck does not fit the backbone."""
    timm, hrnet = variant.startswith(PREFIX), variant.startswith(f"{PREFIX}hrnet")
    if chosen == "auto":
        return "finest_map" if hrnet else "deconv" if timm else "mta"
    if chosen == "cr_mta" and token_reduction == "conv":
        raise ValueError(
            "the neck 'cr_mta' reduces tokens along the clusters of CTMs, but token_reduction conv has none; choose "
            "the neck 'mta' or another token_reduction"
        )
    of_tcformer = chosen in ("mta", "cr_mta")
    if (of_tcformer and timm) or (chosen in ("finest_map", "all_maps") and not hrnet):
        fits = "TCFormer" if of_tcformer else "HRNet"
        raise ValueError(f"the neck '{chosen}' is for {fits}, not for {variant}; choose 'auto' or 'deconv'")
    return chosen


def _build(variant: str, task: str, options: dict[str, Any]) -> Network:
    backbone: Backbone | TimmBackbone
    neck = options.get("neck", "")
    sizes: Variant | None = None
    if variant.startswith(PREFIX):
        output: Output = "pooled" if task == "imagenet" else "finest" if neck == "finest_map" else "maps"
        name = variant.removeprefix(PREFIX)
        backbone = TimmBackbone(name, output, options["pretrained"], options["drop_path_rate"], options["in_chans"])
    else:
        sizes = VARIANTS[variant]
        backbone = Backbone(
            sizes,
            options["drop_path_rate"],
            _reduction(options),
            options["local_parts"],
            options["activation_checkpointing"],
            options["in_chans"],
        )
    if task == "imagenet":
        width = backbone.num_features if isinstance(backbone, TimmBackbone) else backbone.widths[-1]
        return Classifier(backbone, width, options["num_classes"], options["drop_rate"], options["global_pool"])
    if task == "mesh":
        return MeshRegressor(backbone, backbone.widths[-1])
    if task == "features":
        return FeatureExtractor(backbone, options["out_indices"])
    made, width = make_neck(neck, sizes, backbone.widths, backbone.strides)
    return PoseEstimator(backbone, made, width, options["num_keypoints"])

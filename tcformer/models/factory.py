"""Build a network by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from tcformer.errors import UserError
from tcformer.models.networks import Classifier, Network, PoseEstimator
from tcformer.models.variants import VARIANTS

# What each task puts on the backbone, and its options with their defaults.
_NETWORKS: dict[str, tuple[Callable[..., Network], dict[str, int | float]]] = {
    "imagenet": (Classifier, {"num_classes": 1000, "drop_path_rate": 0.0}),
    "wholebody": (PoseEstimator, {"num_keypoints": 133, "drop_path_rate": 0.0}),
}


def list_models() -> list[str]:
    """Names of the variants, smallest first."""
    return list(VARIANTS)


def create_model(variant: str, task: str, **options: Any) -> Network:
    """Build a network with freshly drawn weights.

    Args:
        variant: a name from `list_models()`.
        task: "imagenet", whose network maps images (B, 3, H, W) to class logits (B, num_classes), or
            "wholebody", whose network maps them to heat maps (B, num_keypoints, H / 4, W / 4), sides rounded
            up.
        options: `num_classes` (imagenet, default 1000), `num_keypoints` (wholebody, default 133), and
            `drop_path_rate` (both, default 0): probability of dropping the last block's branches in training.

    Returns:
        The network in training mode. `model.backbone(images)` gives the `Tokens` of the four stages, and
        `model.config` is a dict of variant, task and all options from which `create_model` rebuilds the
        network.

    Raises:
        UserError: an unknown variant, task or option, or an option out of range.
    """
    _check_name("model variant", variant, list(VARIANTS))
    _check_name("task", task, list(_NETWORKS))
    network, defaults = _NETWORKS[task]
    for name, value in options.items():
        _check_name(f"option for the task '{task}'", name, list(defaults))
        _check_value(name, value, defaults[name])
    options = defaults | options
    model = network(VARIANTS[variant], **options)
    model.config = {"variant": variant, "task": task, "options": options}
    return model


def _check_name(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(f"There is no {kind} '{name}'; did you mean '{nearest}'? There are: {', '.join(known)}.")


def _check_value(name: str, value: object, default: float) -> None:
    if isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"The model option {name} must be a whole number of at least 1, but it is {value!r}.")
    elif not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise UserError(f"The model option {name} must be a number from 0 up to but not including 1, not {value!r}.")

"""How a figure was obtained: which experiment the parameters of a run belong to, and who trained the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.dotted import lookup
from pipelines.paper.experiments import OWN_WEIGHTS, Experiment
from tcformer.tasks import PRETRAINING

#: "trained": here, also from a given backbone; "released": somebody else's weights, evaluated here.
Origin: TypeAlias = Literal["trained", "released"]

_MISSING = object()
# Settings that matter only while a network is trained.
_TRAINING_ONLY = (".drop_path", ".sigma", ".pretrained")


def origin_of(experiment: Experiment, params: Mapping[str, Any]) -> Origin | None:
    """How a run with these parameters obtained a figure of an experiment.

    Args:
        experiment: the experiment.
        params: the content of a params.yaml, as a tree.

    Returns:
        "trained" if the parameters are all the experiment's settings (those of the pretraining do not count if the
        backbone came from a file); "released" if released weights for the task were evaluated in the same network
        and in the same way; None if the run does not belong to the experiment.
    """
    if params.get("recipe") != experiment.recipe:
        return None
    training = lookup(params, experiment.training, default={})
    initial, epochs = lookup(training, "initial"), lookup(training, "training.epochs")
    settings = experiment.settings
    if initial and epochs == 0:
        settings = {name: value for name, value in settings.items() if _affects_evaluation(name, experiment)}
        return "released" if Path(initial).suffix != OWN_WEIGHTS and _has_settings(params, settings) else None
    pretraining = experiment.pretraining
    if experiment.task != PRETRAINING and (initial or lookup(params, f"{pretraining}.initial")):
        settings = {name: value for name, value in settings.items() if not name.startswith(f"{pretraining}.")}
    return "trained" if _has_settings(params, settings) else None


def _affects_evaluation(name: str, experiment: Experiment) -> bool:
    """Whether a setting changes what given weights of the task are worth: the network, or how it is evaluated."""
    if name.startswith(f"{experiment.pretraining}.") and experiment.task != PRETRAINING:
        return False
    return ".training." not in name and not name.endswith(_TRAINING_ONLY)


def _has_settings(params: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(lookup(params, name, default=_MISSING) == value for name, value in settings.items())

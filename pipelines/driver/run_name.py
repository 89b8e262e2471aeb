"""The name of a training's run: what distinguishes it from others."""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.dotted import leaves, lookup, parameter_text
from pipelines.layout import PARAMS, ROOT
from pipelines.params import Params, training_section
from pipelines.running.commands import git
from tcformer.errors import UserError
from tcformer.models import NetworkOptions
from tcformer.models.factory import config_options

_MOST_CHANGES = 3  # that a name shows
_LONGEST_VALUE = 24  # characters; for longer values, such as a mixture of datasets, the name shows "changed"
_IN_EVERY_NAME = {
    "network": {"backbone", "token_reduction"},
    "training": {"task.neck", "training.seed"},
}


def run_name(task: str, params: Params, experiment: str = "", root: Path = ROOT) -> str:
    """Such as "wholebody tcformer ctm mta seed 0 lr=0.006 (warm-lynx)".

    The parts are the task, the backbone, how tokens are reduced, the neck, the seed, the parameters of this training
    that differ from the committed params.yaml, and the DVC experiment.

    Args:
        task: name of the task that is trained.
        params: its parameters.
        experiment: name of the DVC experiment; "" outside of experiments.
        root: of the repository; outside of git no parameter counts as changed.
    """
    section, network = params.active.training_of(task), params.active.network
    parts = [
        task,
        network.backbone,
        "" if network.backbone.startswith("timm/") else network.token_reduction,
        _resolved(getattr(section.task, "neck", ""), network),
        f"seed {section.training.seed}",
        *_changes(task, params, root),
        experiment and f"({experiment})",
    ]
    return " ".join(filter(None, parts))


def _resolved(neck: str, network: NetworkOptions) -> str:
    """The neck that is built: "auto" stands for the same one in all tasks."""
    if neck != "auto":
        return neck
    return str(config_options(network.backbone, "wholebody", {**network.model_options, "neck": neck})["neck"])


def _changes(task: str, params: Params, root: Path) -> list[str]:
    """The first parameters of the training that differ from the committed file, as "lr=0.006", then "+2" for more."""
    committed, present = _committed(root), params.active.model_dump(mode="json")
    changes = []
    for kind, section in (("training", training_section(task)), ("network", "network")):
        before = leaves(lookup(committed, f"{params.recipe}.{section}", {}))
        for name, value in leaves(lookup(present, section)).items():
            if name in before and value != before[name] and name not in _IN_EVERY_NAME[kind]:
                text = parameter_text(value)
                changes.append(f"{name.rpartition('.')[2]}={text if len(text) <= _LONGEST_VALUE else 'changed'}")
    more = len(changes) - _MOST_CHANGES
    return [*changes[:_MOST_CHANGES], f"+{more}"] if more > 0 else changes


def _committed(root: Path) -> dict[str, Any]:
    """The committed params.yaml; {} where there is none."""
    try:
        tree = YAML(typ="safe").load(git(root, "show", f"HEAD:./{PARAMS.name}"))
        return dict(json.loads(json.dumps(tree)))
    except (UserError, YAMLError, TypeError, ValueError):
        return {}

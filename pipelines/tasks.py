"""Tasks by name, with options that arrive as plain JSON (from params.yaml, a Ray job or a weights file)."""

import json
from pathlib import Path
from typing import Any

import pydantic

from tcformer.models import NetworkOptions
from tcformer.tasks import (
    TASKS,
    FaceEvaluation,
    FaceOptions,
    ImagenetOptions,
    MeshEvaluation,
    MeshOptions,
    Task,
    WholebodyEvaluation,
    WholebodyOptions,
)

_OPTIONS: dict[str, Any] = {
    "imagenet": ImagenetOptions,
    "wholebody": WholebodyOptions,
    "face": FaceOptions,
    "mesh": MeshOptions,
}
_EVALUATION: dict[str, Any] = {"wholebody": WholebodyEvaluation, "face": FaceEvaluation, "mesh": MeshEvaluation}


def build_task(name: str, options: dict[str, Any], data_root: Path, evaluation: dict[str, Any] | None = None) -> Task:
    """The task ``name`` on the data below ``data_root``.

    Args:
        options: the task's options, and under "network" the recipe's `NetworkOptions`.
        evaluation: how the test set is measured, where the task leaves a choice; needed to predict and evaluate only.
    """
    chosen = [] if evaluation is None else [_checked(_EVALUATION[name], evaluation)]
    own = {key: value for key, value in options.items() if key != "network"}
    network = _checked(NetworkOptions, options["network"])
    return TASKS[name](_checked(_OPTIONS[name], own), network, data_root, *chosen)


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(values))

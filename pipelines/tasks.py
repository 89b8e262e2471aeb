"""Tasks by name, with options that arrive as plain JSON (from params.yaml, a Ray job or a weights file)."""

import json
from pathlib import Path
from typing import Any

import pydantic

from tcformer.tasks.base import Task
from tcformer.tasks.imagenet import ImagenetOptions, ImagenetTask
from tcformer.tasks.wholebody import WholebodyEvaluation, WholebodyOptions, WholebodyTask


def build_task(name: str, options: dict[str, Any], data_root: Path, evaluation: dict[str, Any] | None = None) -> Task:
    """The task ``name`` on the data below ``data_root``.

    Args:
        evaluation: how the test set is measured, where the task leaves a choice; needed to predict and evaluate only.
    """
    if name == "imagenet":
        return ImagenetTask(_checked(ImagenetOptions, options), data_root)
    measured = None if evaluation is None else _checked(WholebodyEvaluation, evaluation)
    return WholebodyTask(_checked(WholebodyOptions, options), data_root, measured)


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(values))

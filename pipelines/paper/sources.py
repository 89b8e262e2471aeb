"""Where each setting of the paper's recipe and of its experiments comes from (sources.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.dotted import leaves
from pipelines.paper.experiments import Experiment

SOURCES = Path(__file__).with_name("sources.yaml")


@cache
def load_sources(path: Path = SOURCES) -> dict[str, Any]:
    """The content of sources.yaml: `sources`; and `paper`, `sample`, `experiments` with [value, source] by setting."""
    content: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return content


def source_of(experiment: Experiment, name: str) -> str | None:
    """The source of an experiment's setting; None for what sources.yaml does not list, such as the seeds of a study.

    Args:
        experiment: one that is not changed to start from given weights.
        name: dotted name of the parameter, with the recipe.
    """
    listed = load_sources()
    setting = name.removeprefix(f"{experiment.recipe}.")
    own = listed["experiments"].get(experiment.unseeded_name, {})
    entry = own.get(setting) or listed[experiment.recipe].get(setting)
    return None if entry is None else str(entry[1])


def settings_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a tree by dotted name. Items of a list of mappings are numbered; other lists are values."""
    return leaves(_numbered(tree))


def _numbered(node: Any) -> Any:  # noqa: ANN401 - any part of a tree
    if isinstance(node, list) and node and all(isinstance(item, Mapping) for item in node):
        node = {str(number): item for number, item in enumerate(node)}
    return {key: _numbered(value) for key, value in node.items()} if isinstance(node, Mapping) else node


def differences(settings: Mapping[str, Any], listed: Mapping[str, Any]) -> list[str]:
    """How settings (dotted name -> value) differ from entries of sources.yaml (dotted name -> [value, source])."""
    found = [f"{name}: missing in {SOURCES.name}; add its value and source" for name in settings if name not in listed]
    for name, (value, _) in listed.items():
        if name not in settings:
            found.append(f"{name}: no such setting; remove it from {SOURCES.name}")
        elif settings[name] != value:
            found.append(f"{name}: is {settings[name]!r}, but {SOURCES.name} has the source of {value!r}; correct it")
    return found

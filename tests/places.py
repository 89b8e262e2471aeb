"""The places that a task must have, in the files of a checkout."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.paper.sources import load_sources
from pipelines.params import training_section
from tcformer.tasks import PARTS, PRETRAINING


def forgotten_places(task: str, root: Path) -> list[str]:
    """What a task still lacks, as "file: what"; empty if it is complete.

    Args:
        task: its name.
        root: of a checkout.
    """
    missing = []
    registry = (root / "tcformer/tasks/registry.py").read_text(encoding="utf-8")
    if task != PRETRAINING and f'"{task}"' not in registry:
        missing.append(f"tcformer/tasks/registry.py: {task!r} in TASKS")
    for part, names in PARTS.items():
        place = f"tcformer/tasks/{task}/{part}.py"
        defined = _defined(root / place) if (root / place).is_file() else set()
        missing += [f"{place}: {name}" for name in names if name not in defined]
    if task != PRETRAINING:
        rooms = (f"tcformer/data/{task}", f"tcformer/metrics/{task}.py")
        missing += [f"{place}, which dvc.yaml names" for place in rooms if not (root / place).exists()]
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    sections = [f"data.{task}", training_section(task), f"evaluate.{task}", f"visualize.{task}"]
    for recipe in ("sample", "paper"):
        missing += [f"params.yaml: {recipe}.{name}" for name in sections if not _has(params[recipe], name)]
    sources = load_sources(root / "pipelines/paper/sources.yaml")["paper"]
    for section in sections:
        if not any(name.startswith(f"{section}.") for name in sources):
            missing.append(f"pipelines/paper/sources.yaml: the settings {section} of the recipe paper, with sources")
    graph = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))
    training = "pretrain" if task == PRETRAINING else f"finetune/{task}"
    drawn = plotted_columns(graph)
    for file in (f"{training}/training.csv", f"{training}/validation.csv", f"evaluate/{task}/parts.csv"):
        if f"runs/${{recipe}}/{file}" not in drawn:
            missing.append(f"dvc.yaml: runs/${{recipe}}/{file} in plots")
    dvc = graph["stages"]
    stages = ["prepare", "evaluate", "visualize"] + ([] if task == PRETRAINING else ["finetune"])
    for stage in stages:
        items = dvc[stage].get("foreach") or dvc[stage]["matrix"]["task"]
        if task not in items:
            missing.append(f"dvc.yaml: {task} in the stage {stage}")
    for folder in [stage for stage in stages if stage != "prepare"]:
        if not any(re.search(rf"/{folder}/{task}\b", dep) for dep in dvc["report"]["deps"]):
            missing.append(f"dvc.yaml: runs/${{recipe}}/{folder}/{task} among the deps of the stage report")
    return missing


def plotted_columns(graph: dict[str, Any]) -> dict[str, set[str]]:
    """File -> its columns that the plots of dvc.yaml draw."""
    columns: dict[str, set[str]] = {}
    for plot in graph["plots"]:
        for options in plot.values():
            for file, column in options["y"].items():
                columns.setdefault(file, set()).update((column, options["x"]))
    return columns


def _defined(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
    return names


def _has(tree: object, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True

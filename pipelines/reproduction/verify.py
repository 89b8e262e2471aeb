"""Compare what the recipe has made on this machine with the committed run: bytes of data and weights, and figures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.layout import Layout
from pipelines.params import Params, training_section
from pipelines.reproduction.measures import MEASURES, read_measures
from pipelines.reproduction.record import DEVIATIONS, SeedRecord
from pipelines.running.commands import git
from tcformer.errors import UserError
from tcformer.tasks import PRETRAINING, TASKS

LOCK = "dvc.lock"
_COMPARED = ("prepare", "pretrain", "finetune", "evaluate")  # stages whose outputs are compared
SAME = 1e-9  # relative difference of figures up to which they are the same: NumPy rounds by the CPU, too


@dataclass(frozen=True)
class Line:
    """The result of one comparison.

    Attributes:
        kind: "data", "weights" or "figure".
        name: of what is compared.
        result: for people.
        failed: whether the machine does not reproduce the committed run. Weights that differ do not fail by themselves.
    """

    kind: str
    name: str
    result: str
    failed: bool = False


def verify(params: Params, record: SeedRecord | None, repository: Path) -> list[Line]:
    """Compare the workspace with the commit HEAD, for the recipe of params.yaml.

    Args:
        params: of the workspace.
        record: figures of several seeds.
        repository: its folder.

    Returns:
        A line for each dataset, each training and each figure that is there.

    Raises:
        UserError: nothing has run, the commit has no run of this recipe, or the last run had other parameters.
    """
    layout = Layout(params.recipe, repository)
    expected = _committed(params.recipe, repository)
    if not any(layout.weights(task).exists() or layout.data(task).exists() for task in TASKS):
        raise UserError(f"nothing of the recipe {params.recipe} has run here yet: run `make repro` first")
    _check_params(_stages_of((repository / LOCK).read_text(encoding="utf-8"), LOCK), expected)
    lines = [*_data(layout, expected), *_weights(layout, expected, params)]
    return [*lines, *_figures(layout, expected, params, record)]


def _stages_of(text: str, where: str) -> dict[str, Any]:
    try:
        return dict(YAML(typ="safe").load(text)["stages"])
    except Exception as error:  # ruamel raises many types
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{where}: cannot be read ({reason}): expected what DVC writes; restore the file") from None


def _committed(recipe: str, repository: Path) -> dict[str, Any]:
    """The stages in the committed dvc.lock."""
    try:
        lock = git(repository, "show", f"HEAD:./{LOCK}")
    except UserError:
        raise UserError(
            f"git has no committed {LOCK} (HEAD): expected a clone of the project's repository; clone it"
        ) from None
    stages = _stages_of(lock, f"HEAD:{LOCK}")
    if not any(out["path"].startswith(f"runs/{recipe}/") for stage in stages.values() for out in stage.get("outs", ())):
        raise UserError(f"the committed {LOCK} has no run of the recipe {recipe}: nothing to compare with")
    return stages


def _check_params(here: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise UserError if the last run of a stage here had other parameters; `instruction_sets` may differ."""
    for stage in expected:
        if stage.partition("@")[0] not in _COMPARED or stage not in here:
            continue
        ours, theirs = (_params(stages[stage]) for stages in (here, expected))
        if differing := [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]:
            raise UserError(
                f"{stage}: the last run here had another {differing[0]} than the committed run: expected the committed "
                "params.yaml; restore it and run `make repro`"
            )


def _params(stage: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = (stage.get("params") or {}).get("params.yaml") or {}
    return {name: value for name, value in params.items() if name != "instruction_sets"}


def _hash_of(path: str, stages: Mapping[str, Any]) -> str | None:
    """DVC's hash of an output; None if no stage has it."""
    return next((o["md5"] for stage in stages.values() for o in stage.get("outs", ()) if o["path"] == path), None)


def dvc_hash(path: Path) -> str:
    """The hash that DVC gives to a file or, from the files in it, to a folder."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listed = [{"md5": dvc_hash(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def _compared(kind: str, name: str, path: Path, layout: Layout, expected: Mapping[str, Any], why: str) -> Line:
    wanted = _hash_of(path.relative_to(layout.root).as_posix(), expected)
    if wanted is None:
        return Line(kind, name, "not in the committed run")
    if not path.exists():
        return Line(kind, name, "not made here yet")
    same = dvc_hash(path) == wanted
    return Line(kind, name, "same bytes" if same else f"differ{why}", failed=kind == "data" and not same)


def _data(layout: Layout, expected: Mapping[str, Any]) -> Iterator[Line]:
    for task in TASKS:
        yield _compared("data", task, layout.data(task), layout, expected, "")


def _weights(layout: Layout, expected: Mapping[str, Any], params: Params) -> Iterator[Line]:
    for task in TASKS:
        weights, why = layout.weights(task), ""
        committed = _hash_of(weights.relative_to(layout.root).as_posix(), expected) and _instruction_sets(
            expected["pretrain" if task == PRETRAINING else training_section(task).replace(".", "@")]
        )
        if params.instruction_sets != (committed or params.instruction_sets):
            why = f": instruction_sets is {params.instruction_sets} here and {committed} in the committed run"
        elif params.instruction_sets == "native":
            why = ": as expected if the CPU is of another kind"
        yield _compared("weights", task, weights, layout, expected, why)


def _instruction_sets(stage: Mapping[str, Any]) -> str:
    return str((stage["params"].get("params.yaml") or {}).get("instruction_sets", "native"))


def _figures(layout: Layout, expected: Mapping[str, Any], params: Params, record: SeedRecord | None) -> Iterator[Line]:
    found = read_measures(layout)
    for measure in MEASURES:
        path = layout.run("evaluate", measure.task) / "metrics.json"
        if measure.name not in found:
            yield Line("figure", measure.name, "not measured here yet")
            continue
        value, seed = found[measure.name], params.active.training_of(measure.task).training.seed
        shown = f"{value:.{measure.digits}f}"
        recorded = record.value(measure.name, seed) if record else None
        spread = record.spread(measure.name) if record else None
        bytes_equal = dvc_hash(path) == _hash_of(path.relative_to(layout.root).as_posix(), expected)
        if bytes_equal or (recorded is not None and math.isclose(value, recorded, rel_tol=SAME, abs_tol=1e-12)):
            yield Line("figure", measure.name, f"{shown}: the same")
        elif spread is None or len(spread.values) < 2:
            yield Line("figure", measure.name, f"{shown}: differs; no spread over seeds is recorded")
        else:
            low, high = spread.limits
            inside = low <= value <= high
            limits = f"{max(low, 0.0):.{measure.digits}f} to {high:.{measure.digits}f}"
            of = f"of {len(spread.values)} seeds, {limits}"
            yield Line(
                "figure", measure.name, f"{shown}: {'within' if inside else 'OUTSIDE'} the spread {of}", not inside
            )


def explanation(lines: list[Line]) -> str:
    """What the lines mean, and how many of them failed."""
    failed = sum(line.failed for line in lines)
    spread = (
        f"Spread: from the lowest to the highest figure of the recorded seeds, {DEVIATIONS} standard deviations more."
    )
    return f"{spread} {failed} of {len(lines)} comparisons failed." if failed else f"{spread} Nothing failed."

"""Experiments side by side: what they measured, in which parameters they differ, bars by part, and their curves."""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.dotted import leaves, parameter_text
from pipelines.layout import Layout
from pipelines.paper.dvc_experiments import read_output
from pipelines.report.parts import BarGroup, Bars, Curve, Part, Report, Section
from pipelines.report.read import history_series, parse_history
from tcformer.errors import UserError
from tcformer.tables import Cell, Table
from tcformer.tasks import ALL_TASKS

_SEED = ".training.seed"  # ends the names of the parameters by which experiments of a group differ
_NO_RESULT = ("cluster.", "tracking.")  # begin the names of parameters that change no result
_MOST_CURVES = 4  # in one pair of axes: the page has four colours


def side_by_side(names: Sequence[str], states: Sequence[Mapping[str, Any]], repository: Path) -> Report:
    """A report with a column for each experiment.

    Args:
        names: of experiments, commits, or "workspace", in the order of the columns; (): all that measured something.
        states: from `dvc_experiments.all_states`.
        repository: its folder.

    Raises:
        UserError: there is no experiment with a name.
    """
    chosen = _choose(names, states)
    bars = tuple(chart for task in ALL_TASKS for chart in _bars(task, chosen, repository))
    curves = tuple(curve for task in ALL_TASKS for curve in _curves(task, chosen, repository))
    note = f"The first {_MOST_CURVES} experiments. " if len(chosen) > _MOST_CURVES else ""
    by_part = Section("By part", bars, f"{note}Experiments are missing where DVC has no parts.csv of their evaluation.")
    return Report(
        "TCFormer, experiments side by side",
        (
            Section("Results", (_results(chosen), *_spreads(chosen), _differences(chosen))),
            *((by_part,) if bars else ()),
            Section("Training", curves, f"{note}Curves are missing where DVC has no file of the training."),
        ),
    )


def _choose(names: Sequence[str], states: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Name -> state."""
    named = {_name(state): state for state in states}
    if not names:
        return {name: state for name, state in named.items() if _headlines(state)}
    for name in names:
        if name not in named:
            raise UserError(
                f"experiment {name!r}: DVC has none of that name; expected one of {', '.join(named)}; "
                "`dvc exp list` shows them"
            )
    return {name: named[name] for name in names}


def _name(state: Mapping[str, Any]) -> str:
    return str(state.get("name") or state["rev"][:9])


def _params(state: Mapping[str, Any]) -> dict[str, str]:
    """The parameters as texts, by dotted name."""
    params: Mapping[str, Any] = (state.get("data") or {}).get("params") or {}
    tree = (params.get("params.yaml") or {}).get("data") or {}
    return {name: parameter_text(value) for name, value in leaves(tree).items()}


def _headlines(state: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(stage, measure) -> value."""
    files = (state.get("data") or {}).get("metrics") or {}
    return {
        (Path(path).stem, measure): value
        for path, content in files.items()
        for measure, value in (content.get("data") or {}).items()
        if isinstance(value, int | float)
    }


def _results(chosen: Mapping[str, Mapping[str, Any]]) -> Table:
    values = {name: _headlines(state) for name, state in chosen.items()}
    keys = dict.fromkeys(key for of_one in values.values() for key in of_one)
    rows: list[tuple[Cell, ...]] = []
    for stage, measure in keys:
        found = (of_one.get((stage, measure)) for of_one in values.values())
        rows.append((stage, measure, *("-" if value is None else f"{value:.4g}" for value in found)))
    note = "The measures are those of metrics/<recipe>/ (docs/measures.md). -: not measured."
    return Table("What was measured", ("stage", "measure", *chosen), tuple(rows), _align(chosen), note=note)


def _spreads(chosen: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """A table of means and standard deviations, with a column for each group that differs by seeds alone; [] if none.

    Experiments of the same seeds, as a commit and an unchanged workspace, are no group.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, ...], str]] = {}
    for name, state in chosen.items():
        params = [(key, value) for key, value in _params(state).items() if not key.startswith(_NO_RESULT)]
        seeds = tuple(value for key, value in params if key.endswith(_SEED))
        settings = tuple((key, value) for key, value in params if not key.endswith(_SEED))
        groups.setdefault(settings, {}).setdefault(seeds, name)
    columns = {
        _common_name(tuple(names.values())): [_headlines(chosen[name]) for name in names.values()]
        for names in groups.values()
        if len(names) > 1
    }
    keys = dict.fromkeys(key for group in columns.values() for of_one in group for key in of_one)
    rows: list[tuple[Cell, ...]] = []
    for stage, measure in keys:
        found = ([of_one.get((stage, measure)) for of_one in group] for group in columns.values())
        rows.append((stage, measure, *map(_spread, found)))
    note = "Experiments that differ by the seeds of their trainings alone: mean ± standard deviation (n - 1)."
    table = Table("Over seeds", ("stage", "measure", *columns), tuple(rows), _align(columns), note=note)
    return [table] if columns else []


def _common_name(names: Sequence[str]) -> str:
    """The first of names such as "small-seed0" and "small-seed1" without its seed, and their number."""
    return f"{re.sub(r'[-_ ]*(seed)?[-_ ]*[0-9]+$', '', names[0]) or names[0]} ({len(names)} seeds)"


def _spread(found: Sequence[float | None]) -> str:
    values = [value for value in found if value is not None]
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else "-"
    return f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"


def _differences(chosen: Mapping[str, Mapping[str, Any]]) -> Table:
    values = {name: _params(state) for name, state in chosen.items()}
    keys = dict.fromkeys(key for of_one in values.values() for key in of_one)
    rows = []
    for key in keys:
        found = [of_one.get(key, "-") for of_one in values.values()]
        if len(set(found)) > 1:
            section, _, leaf = key.rpartition(".")
            rows.append((section or "all", leaf, *found))
    if not rows and chosen:
        rows.append(("all", "every parameter", *("the same" for _ in chosen)))
    return Table("Parameters that differ", ("section", "parameter", *chosen), tuple(rows), _align(chosen))


def _align(chosen: Mapping[str, object]) -> str:
    return "ll" + "r" * len(chosen)


def _bars(task: str, chosen: Mapping[str, Mapping[str, Any]], repository: Path) -> Iterator[Part]:
    groups = []
    for name, state in list(chosen.items())[:_MOST_CURVES]:
        folder = Layout(_params(state).get("recipe", ""), repository).run("evaluate", task)
        text = read_output((folder / "parts.csv").relative_to(repository).as_posix(), state, repository)
        if text is not None:
            rows = csv.DictReader(text.splitlines())
            groups.append(BarGroup(name, tuple((row["part"], float(row["value"])) for row in rows)))
    if groups:
        report = ALL_TASKS[task].part("report")
        yield Bars(f"{report.TITLE}: by part", getattr(report, "PART_MEASURE", "main measure"), tuple(groups))


def _curves(task: str, chosen: Mapping[str, Mapping[str, Any]], repository: Path) -> Iterator[Part]:
    series = []
    for name, state in list(chosen.items())[:_MOST_CURVES]:
        folder = Layout(_params(state).get("recipe", ""), repository).training(task)
        path = (folder / "validation.csv").relative_to(repository).as_posix()
        text = read_output(path, state, repository)
        if text is not None:
            series.append(history_series(parse_history(text, f"{path} of {name}"), "val_loss", name))
    if series:
        yield Curve(f"{ALL_TASKS[task].part('report').TITLE}: validation loss", "step", "loss", tuple(series))

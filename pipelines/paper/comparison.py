"""Published figures beside those measured here: the paper's tables, and the study's means over seeds.

Published figures come from published.yaml, ours from the metrics of runs whose parameters are those of an experiment.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.paper.experiments import Experiment, load_experiments
from pipelines.paper.origins import Origin, origin_of
from pipelines.report.parts import Report, Section
from tcformer.tables import Cell, Metrics, Table, measure_at

PUBLISHED = Path(__file__).with_name("published.yaml")
NO_FIGURE = "-"  # a source gives no figure, or a network has no such measure

_PUBLISHED_BY = {"paper": "published", "released": "released weights, published"}
_MEASURED_FROM: dict[Origin, str] = {"released": "released weights, measured here", "trained": "trained here"}
_FIGURES = (*_PUBLISHED_BY.values(), *_MEASURED_FROM.values())


@dataclass(frozen=True)
class MeasuredRun:
    """What one run measured.

    Attributes:
        name: of DVC's experiment, or where the run comes from.
        commit_time: of its commit in ISO 8601; "" if it is not committed.
        params: its params.yaml, as a tree.
        metrics: task -> content of its evaluation's metrics.json.
    """

    name: str
    commit_time: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Metrics]


@cache
def published(path: Path = PUBLISHED) -> dict[str, Any]:
    """The content of published.yaml: `tables` by name, and `study`."""
    content: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return content


def comparison(names: Iterable[str], runs: Iterable[MeasuredRun]) -> Report:
    """The named tables of `TABLES` as a report."""
    runs = tuple(runs)
    tables = tuple(study_table(runs) if name == "study" else paper_table(name, runs) for name in names)
    return Report("TCFormer, the paper's tables", (Section("Published and measured", tables),))


def paper_table(name: str, runs: Iterable[MeasuredRun]) -> Table:
    """A table of the paper, with a row for each measure of a network and a column for each origin of its figure.

    Args:
        name: of one of `published()["tables"]`.
        runs: everything measured; of several runs of one experiment the latest counts.
    """
    table, experiments, runs = published()["tables"][name], load_experiments(), tuple(runs)
    rows: list[tuple[Cell, ...]] = []
    for row in table["rows"]:
        columns: list[list[Cell]] = []
        for source in _PUBLISHED_BY:
            figures = row.get(source, [NO_FIGURE] * len(table["columns"]))
            columns.append([_as_printed(figure, table["digits"]) for figure in figures])
        experiment = experiments.get(row.get("experiment", ""))
        for origin in _MEASURED_FROM:
            if experiment is None or (origin == "released" and "released" not in row):
                columns.append([NO_FIGURE] * len(table["columns"]))
            else:
                columns.append(_measured_figures(experiment, origin, runs, table))
        rows += [(row["network"], measure, *cells) for measure, *cells in zip(table["columns"], *columns, strict=True)]
    return Table(
        table["title"],
        ("network", "measure", *_FIGURES),
        tuple(rows),
        align="ll" + "r" * len(_FIGURES),
        digits=table["digits"],
        note=f"{table['unit']} {NO_FIGURE}: no figure. Published: {table['source']}; released weights: the authors' "
        "repository. Trained here: also from given weights of the backbone.",
    )


def _as_printed(figure: float | str, digits: int) -> str:
    return figure if isinstance(figure, str) else f"{figure:.{digits}f}"


def _measured_figures(
    experiment: Experiment, origin: Origin, runs: tuple[MeasuredRun, ...], table: Mapping[str, Any]
) -> list[Cell]:
    run = latest(experiment, origin, runs)
    if run is None:
        return [None] * len(table["columns"])
    values = [measure_at(run.metrics[experiment.task], keys) for keys in table["columns"].values()]
    return [NO_FIGURE if value is None else value * table["scale"] for value in values]


def latest(experiment: Experiment, origin: Origin, runs: Iterable[MeasuredRun]) -> MeasuredRun | None:
    """The latest run that obtained an experiment's figures in one way; one that is not committed is the latest."""
    found = [r for r in runs if experiment.task in r.metrics and origin_of(experiment, r.params) == origin]
    return max(found, key=lambda run: (run.commit_time == "", run.commit_time), default=None)


def study_table(runs: Iterable[MeasuredRun]) -> Table:
    """The study: the figures of each seed, their mean and their sample standard deviation."""
    runs, measures = tuple(runs), published()["study"]["columns"]
    networks: dict[str, list[Experiment]] = {}
    for experiment in load_experiments().values():
        if "study" in experiment.tables:
            networks.setdefault(experiment.description, []).append(experiment)
    seeds = sorted({e.seed for group in networks.values() for e in group if e.seed is not None})
    rows: list[tuple[Cell, ...]] = []
    for description, group in networks.items():
        found = {e.seed: latest(e, "trained", runs) for e in group}
        for measure, keys in measures.items():
            values = [_measure_of(found.get(seed), group[0].task, keys) for seed in seeds]
            known = [value for value in values if value is not None]
            mean = statistics.fmean(known) if known else None
            deviation = statistics.stdev(known) if len(known) > 1 else None
            rows.append((description, measure, *values, len(known), mean, deviation))
    columns = ("network", "measure", *(f"seed {seed}" for seed in seeds), "seeds", "mean", "standard deviation")
    note = "Generated people: not comparable with published figures. Standard deviation: of a sample (n - 1)."
    title = "Study on generated people: does clustering or MTA help a small network?"
    return Table(title, columns, tuple(rows), align="ll" + "r" * (len(columns) - 2), note=note)


def _measure_of(run: MeasuredRun | None, task: str, keys: list[str]) -> float | None:
    return None if run is None else measure_at(run.metrics[task], keys)

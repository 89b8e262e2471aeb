"""Published figures beside what was measured here: the paper's tables, and the study's means over seeds.

Published figures come from published.yaml, ours from the metrics files of runs whose parameters are an experiment's.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.paper.experiments import Experiment, kind_of, load_experiments, value_at
from pipelines.report import Cell, Table

PUBLISHED = Path(__file__).with_name("published.yaml")
NOTHING = "-"  # where a source gives no figure, or a network has no such measure

_SOURCES = {"paper": "published", "released": "released weights, published"}
_KINDS = {"released": "released weights, measured here", "trained": "trained here"}
_FIGURES = (*_SOURCES.values(), *_KINDS.values())


@dataclass(frozen=True)
class Measured:
    """What one run measured.

    Attributes:
        name: of DVC's experiment, or where it comes from.
        when: time of its commit in ISO 8601; "" for what is not committed. Later runs count before earlier ones.
        params: its params.yaml, as a tree.
        metrics: task -> content of its evaluation's metrics.json.
    """

    name: str
    when: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


@cache
def published(path: Path = PUBLISHED) -> dict[str, Any]:
    """The content of published.yaml: `tables` by name, and `study`."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def paper_table(name: str, runs: Iterable[Measured], path: Path = PUBLISHED) -> Table:
    """A table of the paper, with a row for each measure of a network and a column for each origin of its figure.

    Args:
        name: of one of `published()["tables"]`.
        runs: everything measured; of several runs of one experiment the latest counts.
    """
    table, experiments, measured = published(path)["tables"][name], load_experiments(), tuple(runs)
    rows: list[tuple[Cell, ...]] = []
    for row in table["rows"]:
        origins: list[list[Cell]] = []
        for source in _SOURCES:
            origins.append([_shown(v, table["digits"]) for v in row.get(source, [NOTHING] * len(table["columns"]))])
        experiment = experiments.get(row.get("experiment", ""))
        for kind in _KINDS:
            if experiment is None or (kind == "released" and "released" not in row):
                origins.append([NOTHING] * len(table["columns"]))
            else:
                origins.append(_figures(experiment, kind, measured, table))
        rows += [(row["network"], measure, *cells) for measure, *cells in zip(table["columns"], *origins, strict=True)]
    return Table(
        table["title"],
        ("network", "measure", *_FIGURES),
        tuple(rows),
        align="ll" + "r" * len(_FIGURES),
        digits=table["digits"],
        note=f"{table['unit']} {NOTHING}: no figure. Published: {table['source']}; released weights: the authors' "
        "repository. Trained here: also from given weights of the backbone.",
    )


def _shown(value: float | str, digits: int) -> str:
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def _figures(experiment: Experiment, kind: str, runs: tuple[Measured, ...], table: Mapping[str, Any]) -> list[Cell]:
    run = latest(experiment, kind, runs)
    if run is None:
        return [None] * len(table["columns"])
    metrics = run.metrics[experiment.task]
    values = [value_at(metrics, ".".join(keys)) for keys in table["columns"].values()]
    return [NOTHING if value is None else float(value) * table["scale"] for value in values]


def latest(experiment: Experiment, kind: str, runs: Iterable[Measured]) -> Measured | None:
    """The latest run that measured an experiment in the manner `kind` of `kind_of`; uncommitted ones first."""
    found = [run for run in runs if experiment.task in run.metrics and kind_of(experiment, run.params) == kind]
    return max(found, key=lambda run: (run.when == "", run.when), default=None)


def study_table(runs: Iterable[Measured], path: Path = PUBLISHED) -> Table:
    """The study: each seed's figures, their mean and their sample standard deviation."""
    measured, measures = tuple(runs), published(path)["study"]["columns"]
    groups: dict[str, list[Experiment]] = {}
    for experiment in load_experiments().values():
        if "study" in experiment.tables:
            groups.setdefault(experiment.description, []).append(experiment)
    seeds = sorted({e.seed for group in groups.values() for e in group if e.seed is not None})
    rows: list[tuple[Cell, ...]] = []
    for description, group in groups.items():
        found = {e.seed: latest(e, "trained", measured) for e in group}
        for measure, keys in measures.items():
            values = [_value(found.get(seed), group[0].task, keys) for seed in seeds]
            known = [value for value in values if value is not None]
            mean = statistics.fmean(known) if known else None
            deviation = statistics.stdev(known) if len(known) > 1 else None
            rows.append((description, measure, *values, len(known), mean, deviation))
    columns = ("network", "measure", *(f"seed {seed}" for seed in seeds), "seeds", "mean", "standard deviation")
    note = "Generated people: not comparable with published figures. Standard deviation: of a sample (n - 1)."
    title = "Study on generated people: does clustering or MTA help a small network?"
    return Table(title, columns, tuple(rows), align="ll" + "r" * (len(columns) - 2), note=note)


def _value(run: Measured | None, task: str, keys: list[str]) -> float | None:
    value = None if run is None else value_at(run.metrics[task], ".".join(keys))
    return None if value is None else float(value)

"""The report's sections on keypoints and on tokens, from keypoints.json and tokens.json of the evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.report.parts import BarGroup, Bars, Part, Section
from tcformer.metrics.points import ALL
from tcformer.tables import Cell, Table
from tcformer.tasks import ALL_TASKS

Files = Mapping[str, Mapping[str, Any] | None]  # by task; None where the evaluation has not run

_TOKEN_COLUMNS = {
    "tokens": "tokens",
    "token_share": "tokens on people",
    "density": "ratio",
    "purity": "purity",
    "person_purity": "purity on people",
    "rand_index": "kept after a step",
}


def keypoints_section(files: Files) -> Section:
    """For each task and test set a table of the means by part, and a chart of each keypoint's first measure."""
    parts = [part for task, content in files.items() for part in _keypoint_parts(_title(task), content)]
    text = (
        "docs/measures.md explains the measures. keypoints.json beside metrics.json has all figures of each keypoint."
    )
    return Section("Keypoints", tuple(parts), text)


def part_bars(task: str, measured: Files) -> tuple[Bars, ...]:
    """The main measure of each part, subset or test set, as bars; () for a task whose report names no such measure.

    Args:
        task: its name.
        measured: name of a group of bars -> metrics; None where there are none.
    """
    report = ALL_TASKS[task].part("report")
    if not hasattr(report, "PART_MEASURE"):
        return ()
    groups = tuple(
        BarGroup(name, tuple(ALL_TASKS[task].parts(metrics).items())) for name, metrics in measured.items() if metrics
    )
    return (Bars(f"{report.TITLE}: by part", report.PART_MEASURE, groups),)


def tokens_section(files: Files) -> Section:
    """For each task a table of the tokens' measures by stage."""
    tables = tuple(table for task, content in files.items() for table in _token_tables(_title(task), content))
    text = (
        "Do tokens follow people, what do they mix, and does the network need them? docs/measures.md explains the "
        "measures."
    )
    return Section("Tokens", tables, text)


def _title(task: str) -> str:
    title: str = ALL_TASKS[task].part("report").TITLE
    return title


def _keypoint_parts(title: str, content: Mapping[str, Any] | None) -> Iterator[Part]:
    if content is None:
        yield Table(f"{title}: keypoints", ("part",), ())
        return
    for name, table in content.get("tables", {}).items():  # none for a task without keypoints
        measures: dict[str, str] = table["measures"]
        keypoints: list[dict[str, Any]] = table["keypoints"]
        where = f"{title}, {name}"
        counts = {ALL: sum(k["count"] for k in keypoints)}
        for keypoint in keypoints:
            counts[keypoint["part"]] = counts.get(keypoint["part"], 0) + keypoint["count"]
        rows = [
            (_readable(part), counts[part], *("none" if mean is None else mean for mean in means.values()))
            for part, means in table["parts"].items()
        ]
        note = f"{'; '.join(f'{measure}: {meaning}' for measure, meaning in measures.items())}."
        yield Table(f"{where}: keypoints by part", ("part", "points", *measures), tuple(rows), note=note)
        first = next(iter(measures))
        groups = [
            BarGroup(_readable(part), tuple((_readable(k["name"]), k[first]) for k in keypoints if k["part"] == part))
            for part in dict.fromkeys(k["part"] for k in keypoints)
        ]
        yield Bars(f"{where}: each keypoint", f"{first}: {measures[first]}", tuple(groups))


def _token_tables(title: str, content: Mapping[str, Any] | None) -> Iterator[Table]:
    name = f"{title}: tokens by stage"
    if content is None:
        yield Table(name, ("stage",), ())
    elif "stages" not in content:
        yield Table(name, ("stage", "tokens"), (("all", "not measured"),), note=f"Reason: {content['skipped']}.")
    else:
        yield _stage_table(name, content)
        by_part = [stage["twins_in_one_token"] for stage in content["stages"].values()]
        parts = [part for part in by_part[0] if part != ALL]
        if len(parts) > 1:
            columns = ("part", *(f"stage {number}" for number in range(1, len(by_part) + 1)))
            rows = tuple((part, *(_shown(stage[part]) for stage in by_part)) for part in parts)
            yield Table(f"{title}: left and right points in one token", columns, rows)


def _stage_table(name: str, content: Mapping[str, Any]) -> Table:
    stages, intact = content["stages"], content["intact"]
    area = next(iter(stages.values()))["area_share"]
    known = [column for column in _TOKEN_COLUMNS if any(stage[column] is not None for stage in stages.values())]
    twins = [part for part in next(iter(stages.values()))["twins_in_one_token"] if part == ALL]
    # A loss means something only beside that of the whole network, and has too few decimals in a table.
    blanked = ["loss without, times" if measure == "loss" else f"{measure} without" for measure in intact]
    rows: list[tuple[Cell, ...]] = [
        (
            key.removeprefix("stage"),
            *(stage[column] for column in known),
            *(_shown(stage["twins_in_one_token"][part]) for part in twins),
            *(_blanked(stage["blanked"][measure], value, measure) for measure, value in intact.items()),
        )
        for key, stage in stages.items()
    ]
    whole = ", ".join(f"{measure} {_short(value)}" for measure, value in intact.items())
    notes = [
        f"{content['images']} images, {content['cells']} grid cells each",
        "kept after a step: adjusted Rand index of the clusters before and after one optimiser step at the learning "
        f"rate {content['learning_rate']:g}",
        "without: neck and head get the mean feature in place of this stage's tokens",
        f"with all stages: {whole}",
    ]
    if area is not None:
        notes[1:1] = [
            f"{_short(100 * area)} % of the area is on people",
            "ratio: tokens on people over area of people, 1 on a fixed grid",
        ]
    columns = ("stage", *(_TOKEN_COLUMNS[column] for column in known), *("twins in one token" for _ in twins), *blanked)
    return Table(name, columns, tuple(rows), note=f"{'; '.join(notes)}.")


def _blanked(value: float, intact: float, measure: str) -> Cell:
    if measure != "loss":
        return value
    return value / intact if intact > 0 else "none"


def _shown(value: float | None) -> Cell:
    return "none" if value is None else value


def _short(value: float) -> str:
    return f"{value:.3g}"


def _readable(name: str) -> str:
    """A name of data, such as left_wrist or lefthand, in words."""
    return re.sub(r"^(left|right)(?=[a-z])", r"\1 ", name.replace("_", " "))

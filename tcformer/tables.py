"""What a report shows of a task: tables, and measured values beside those of a trivial answer. No markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tcformer.errors import UserError

#: Content of a table's cell; None where nothing was measured.
Cell: TypeAlias = str | int | float | None
#: Content of metrics.json: what a task's `evaluate` returned, that is measures by name, also nested, and under
#: "baseline" those of a trivial answer; also means over keypoints ("points") and a few measures of tokens ("tokens").
Metrics: TypeAlias = Mapping[str, Any]

_NO_GROUPS = ("baseline", "points", "tokens")


@dataclass(frozen=True)
class Table:
    """A table with one heading row; the first column names the rows.

    Attributes:
        title: what the table shows.
        columns: headings.
        rows: one cell for each column; no rows if nothing was measured.
        align: "l" (left) or "r" (right) for each column; "" aligns the first column left and all others right.
        digits: decimals of floats. A value that would show only zeros is written with two significant digits.
        note: a sentence below the table, or "".

    Raises:
        UserError: a number is not finite.
        ValueError: a row or `align` does not fit the number of columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str = ""
    digits: int = 3
    note: str = ""

    def __post_init__(self) -> None:
        if self.align and (len(self.align) != len(self.columns) or set(self.align) - {"l", "r"}):
            raise ValueError(f"table {self.title!r}: align is {self.align!r} for {len(self.columns)} columns")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row has {len(row)} cells for {len(self.columns)} columns")
            for column, cell in zip(self.columns, row, strict=True):
                if isinstance(cell, float) and not math.isfinite(cell):
                    raise UserError(
                        f"table {self.title!r}, row {row[0]!r}, column {column!r}: the value is {cell}; expected a "
                        "finite number; run the stage that measures it again"
                    )

    @property
    def right_aligned(self) -> tuple[bool, ...]:
        """For each column whether it is aligned right."""
        letters = self.align or "l" + "r" * (len(self.columns) - 1)
        return tuple(letter == "r" for letter in letters)


@dataclass(frozen=True)
class Headline:
    """One measured value beside the value of a trivial answer: a row of the report's first table.

    Attributes:
        task: as in a sentence: "whole-body pose", "classification".
        name: of the measure.
        value: measured, or None if nothing was measured.
        baseline_name: the trivial answer: "mean pose", "chance".
        baseline: its value, or None.
        short: stable name by which runs are compared in MLflow: "body/AP"; "": it is not among these measures.

    Raises:
        UserError: a number is not finite.
    """

    task: str
    name: str
    value: float | None
    baseline_name: str
    baseline: float | None
    short: str = ""

    def __post_init__(self) -> None:
        for what, number in (("value", self.value), (f"baseline {self.baseline_name!r}", self.baseline)):
            if number is not None and not math.isfinite(number):
                raise UserError(
                    f"{self.task}, measure {self.name!r}: the {what} is {number}; expected a finite number; run the "
                    "stage that measures it again"
                )


def headline(
    metrics: Metrics | None, keys: Sequence[str], *, task: str, name: str, baseline_name: str, short: str = ""
) -> Headline:
    """The measure under `keys` in the metrics, one key for each level, beside the same measure of the baseline."""
    baseline = measure_at(metrics, ("baseline", *keys))
    return Headline(task, name, measure_at(metrics, keys), baseline_name, baseline, short)


def measure_at(metrics: Metrics | None, keys: Sequence[str]) -> float | None:
    """The number under `keys`, one key for each level; None if it is missing or null."""
    value: Any = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def measured(metrics: Metrics, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Name -> the number at its keys in the metrics, without those that are missing or null."""
    found = {name: measure_at(metrics, keys) for name, keys in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def group_rows(metrics: Metrics | None, measures: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
    """One row for each group of samples in the metrics: its name and the named measures."""
    groups = group_names(metrics or {})
    return tuple((name, *((metrics or {})[name].get(measure) for measure in measures)) for name in groups)


def group_names(metrics: Metrics) -> list[str]:
    """The groups of samples in the metrics: test sets or subsets."""
    return [name for name in metrics if name not in _NO_GROUPS]

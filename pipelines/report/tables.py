"""Tables that belong to no single task: all headlines in one table, and names with values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.report.numbers import cell_text, parameter_text, ratio_text
from tcformer.tables import Cell, Headline, Table


def summary_table(headlines: Iterable[Headline], title: str = "What was learned") -> Table:
    """Each measured value beside its baseline, and the ratio of the two."""
    rows: list[tuple[Cell, ...]] = []
    for headline in headlines:
        ratio = None
        if headline.value is not None and headline.baseline is not None:
            ratio = ratio_text(headline.value / headline.baseline) if headline.baseline > 0 else "baseline is 0"
        baseline = f"{cell_text(headline.baseline, digits=3)} ({headline.baseline_name})"
        rows.append((headline.task, headline.name, headline.value, baseline, ratio))
    return Table(title, ("task", "metric", "value", "baseline", "ratio"), tuple(rows), "llrrr")


def mapping_table(title: str, mapping: Mapping[str, Any] | None) -> Table:
    """Names and values (parameters, hashes of data, versions); names of nested values are joined by dots."""
    return Table(title, ("name", "value"), () if mapping is None else tuple(_flat(mapping, prefix="")), align="ll")


def _flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(parameter_text(item) for item in value)
        else:
            yield name, parameter_text(value)

"""The few numbers of a stage by which DVC compares experiments: small files that git keeps, metrics/<recipe>/."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

_DIGITS = 4  # significant ones and decimals: more are noise, and widen the table that `dvc metrics show` prints


def write_headline(path: Path, numbers: Mapping[str, float]) -> None:
    """Write the numbers as JSON, rounded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(float(f"{value:.{_DIGITS}g}"), _DIGITS) for name, value in numbers.items()}
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def write_parts(path: Path, numbers: Mapping[str, float]) -> None:
    """Write the values of parts, subsets or test sets as a table, from which `dvc plots` draws bars."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("part", "value"))
        writer.writerows((name, f"{value:.{_DIGITS}g}") for name, value in numbers.items())

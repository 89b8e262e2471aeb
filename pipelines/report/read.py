"""Reading the files that the other stages wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.report.parts import Series
from tcformer.errors import UserError


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON file such as metrics.json; None if no stage has written it.

    Raises:
        UserError: the file does not contain a JSON object.
    """
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: the file is not JSON ({error}); run the stage that writes it again") from error
    if not isinstance(values, dict):
        found = type(values).__name__
        raise UserError(f"{path}: the file contains a {found}; expected an object; run the stage that writes it again")
    return values


def read_history(path: Path) -> dict[str, tuple[float | None, ...]] | None:
    """Read the CSV file of a training, see `parse_history`.

    Returns:
        Column name -> its values, None for empty fields; None if the file does not exist.

    Raises:
        UserError: the file is no text, a row has the wrong number of fields, or a field is not a number.
    """
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the file cannot be read as text ({error}); train again") from error
    return parse_history(text, str(path))


def parse_history(text: str, name: str) -> dict[str, tuple[float | None, ...]]:
    """The history of a training, with one row for each logged step; a field may be empty.

    Args:
        text: CSV.
        name: of its file, for messages.

    Returns:
        Column name -> its values, None for empty fields.

    Raises:
        UserError: a row has the wrong number of fields, or a field is not a number.
    """
    reader = csv.reader(text.splitlines())
    columns = next(reader, [])
    history: list[list[float | None]] = [[] for _ in columns]
    for row in reader:
        where = f"{name}:{reader.line_num}"
        if len(row) != len(columns):
            raise UserError(f"{where}: the row has {len(row)} fields; expected {len(columns)}; train again")
        for column, field, values in zip(columns, row, history, strict=True):
            try:
                values.append(float(field) if field.strip() else None)
            except ValueError:
                raise UserError(
                    f"{where}: column {column!r} is {field!r}; expected a number or nothing; train again"
                ) from None
    return dict(zip(columns, map(tuple, history), strict=True))


def history_series(
    history: Mapping[str, Sequence[float | None]] | None, column: str, name: str, x: str = "step"
) -> Series:
    """One column of a history over another, as a line of a curve, where both have values.

    Args:
        history: from `read_history`.
        column: of the values.
        name: of the line.
        x: column of the horizontal axis.
    """
    if history is None or column not in history or x not in history:
        return Series(name, (), ())
    pairs = [(a, b) for a, b in zip(history[x], history[column], strict=True) if a is not None and b is not None]
    return Series(name, tuple(a for a, _ in pairs), tuple(b for _, b in pairs))

"""The report as one self-contained HTML page: page.html.j2 filled in, with style.css, pictures and curves inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipelines.report.bars import lay_out_bars
from pipelines.report.curves import lay_out
from pipelines.report.numbers import NOT_RUN, cell_text
from pipelines.report.parts import Inspector, Part, Report
from tcformer.tables import Cell


def to_html(report: Report) -> str:
    """The whole report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "NOT_RUN": NOT_RUN,
        "bars_of": lay_out_bars,
        "base64": _base64,
        "cell_class": _cell_class,
        "cell_text": cell_text,
        "inspector_data": _inspector_data,
        "pixels": _pixels,
        "plot_of": lay_out,
        "runs_of_one_kind": _runs_of_one_kind,
    }
    script = (Path(__file__).parent / "inspector.js").read_text(encoding="utf-8")
    inspectors = [part for section in report.sections for part in section.parts if isinstance(part, Inspector)]
    has_inspector = any(inspector.shown for inspector in inspectors)
    return environment.get_template("page.html.j2").render(
        report=report,
        script=Markup(script) if has_inspector else "",
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _inspector_data(inspector: Inspector) -> Markup:
    """The pictures as JSON inside a script element, which only "</" could end."""
    return Markup(json.dumps({"pictures": inspector.shown}).replace("<", "\\u003c"))


def _pixels(value: float) -> str:
    return f"{value:.1f}"


def _cell_class(cell: Cell, text: str, right_aligned: bool) -> str | None:
    """Style classes of a cell; None where it has none."""
    long = len(text) > 40 and " " not in text  # a hash, which may break anywhere
    classes = {"number": right_aligned, "missing": cell is None, "long": long}
    return " ".join(name for name, applies in classes.items() if applies) or None


def _runs_of_one_kind(parts: Iterable[Part]) -> Iterator[tuple[str, list[Part]]]:
    """Consecutive parts of one kind with its name: curves stand side by side."""
    for kind, run in groupby(parts, type):
        yield kind.__name__, list(run)

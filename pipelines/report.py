"""The report: what was measured, as Markdown and as one HTML page that needs nothing beside it.

Numbers come from the files that the stages wrote and are never made up here: what is missing reads "not run".
There are no time stamps, so the same inputs give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tcformer.errors import UserError

Cell = str | int | float | None
NOT_RUN = "not run"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Table:
    """A table with one heading row; the first column names the rows.

    Attributes:
        title: what the table shows.
        columns: headings.
        rows: as many cells in each as there are columns. None reads "not run", and so does a table without
            rows. Floats are written with `digits` decimals, or two significant digits where those show only
            zeros.
        align: "l" or "r" for each column; "" sets all but the first to the right, as numbers are.
        digits: decimals of floats.
        note: a sentence below the table, or "".

    Raises:
        UserError: a number is not finite.
        ValueError: a row or `align` has another number of columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str = ""
    digits: int = 3
    note: str = ""

    def __post_init__(self) -> None:
        if self.align and (len(self.align) != len(self.columns) or set(self.align) - {"l", "r"}):
            raise ValueError(f"table {self.title!r}: align {self.align!r} for {len(self.columns)} columns")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: {len(row)} cells under {len(self.columns)} columns")
            for column, cell in zip(self.columns, row, strict=True):
                if isinstance(cell, float) and not math.isfinite(cell):
                    raise UserError(
                        f"report table {self.title!r}, row {row[0]!r}, column {column!r}: {cell} is not a "
                        "finite number; expected a measured value; run the stage that measures it again"
                    )

    @property
    def right(self) -> tuple[bool, ...]:
        """Which columns are set to the right."""
        letters = self.align or "l" + "r" * (len(self.columns) - 1)
        return tuple(letter == "r" for letter in letters)


@dataclass(frozen=True)
class Picture:
    """A PNG picture.

    Attributes:
        title: what it shows; also its text for those who cannot see it.
        png: the bytes of the file, which the HTML page embeds.
        caption: a few sentences below it, or "".
        path: where the Markdown finds the file, relative to itself, or "" if nowhere.

    Raises:
        ValueError: the bytes are no PNG.
    """

    title: str
    png: bytes
    caption: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        if self.png[:8] != _PNG_SIGNATURE or self.png[12:16] != b"IHDR" or len(self.png) < 33:
            raise ValueError(f"picture {self.title!r} is not a PNG")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the file's header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height


@dataclass(frozen=True)
class Series:
    """One line of a curve: y over x, both finite and of one length.

    Raises:
        UserError: a number is not finite.
        ValueError: the lengths differ.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x and {len(self.y)} y")
        for x, y in zip(self.x, self.y, strict=True):
            if not (math.isfinite(x) and math.isfinite(y)):
                raise UserError(
                    f"report curve {self.name!r}: the point ({x}, {y}) is not finite; expected numbers; "
                    "remove the row from the history file or train again"
                )


@dataclass(frozen=True)
class Curve:
    """Lines over one pair of axes.

    Attributes:
        title: what it shows.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        series: up to four lines; none, or only empty ones, reads "not run".
        log_y: logarithmic vertical axis, if all values are positive.

    Raises:
        ValueError: more than four series.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False

    def __post_init__(self) -> None:
        if len(self.series) > 4:
            raise ValueError(f"curve {self.title!r} has {len(self.series)} series; the page has four colours")

    @property
    def drawn(self) -> tuple[Series, ...]:
        """The series that hold at least one point."""
        return tuple(series for series in self.series if series.x)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain text (parted by empty lines) and what follows them.

    Attributes:
        title: the heading.
        parts: tables, pictures and curves, in order.
        text: plain text, or "".
        folded: the HTML page shows only the heading until it is opened; for long tables.
    """

    title: str
    parts: tuple[Table | Picture | Curve, ...] = ()
    text: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Metric:
    """One measured number beside what would be had without learning.

    Attributes:
        task: "whole-body pose", "classification", ...
        name: of the metric.
        value: measured, or None if the stage has not run.
        baseline_name: "mean pose", "chance", ...
        baseline: its value, or None.

    Raises:
        UserError: a number is not finite.
    """

    task: str
    name: str
    value: float | None
    baseline_name: str
    baseline: float | None

    def __post_init__(self) -> None:
        for what, number in (("value", self.value), (f"baseline {self.baseline_name!r}", self.baseline)):
            if number is not None and not math.isfinite(number):
                raise UserError(
                    f"{self.task}, metric {self.name!r}: the {what} is {number}; expected a finite number; "
                    "run the stage that measures it again"
                )


def build_report(sections: Sequence[Section], title: str = "TCFormer") -> tuple[str, str]:
    """Write the report.

    Args:
        sections: in order.
        title: of the page.

    Returns:
        Markdown and HTML. The HTML page is self-contained: pictures as base64 PNG, curves as inline SVG,
        style inline, no scripts. Both end with a newline.

    Raises:
        ValueError: no sections.
    """
    if not sections:
        raise ValueError("a report needs at least one section")
    markdown = "\n\n".join([f"# {_md(title)}", *(block for s in sections for block in _markdown_section(s))])
    contents = "".join(f'<a href="#s{i}">{escape(s.title)}</a>' for i, s in enumerate(sections, 1))
    body = "".join(_html_section(section, f"s{i}") for i, section in enumerate(sections, 1))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>\n<nav>{contents}</nav></header>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
    return markdown + "\n", page


# What the stages wrote.


def read_metrics(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of metrics; None if the stage has not written it.

    Raises:
        UserError: the file is no JSON object.
    """
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); run the stage that writes it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}; expected an object of metrics; run its stage again")
    return values


def read_history(path: Path) -> dict[str, tuple[float | None, ...]] | None:
    """Read the CSV of a training: one row a step, an empty field where a column was not logged at that step.

    Returns:
        Column name -> its values, or None if the file does not exist.

    Raises:
        UserError: a row has the wrong length or a field is not a number.
    """
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        values: list[list[float | None]] = [[] for _ in columns]
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(columns):
                raise UserError(f"{where}: {len(row)} fields; expected {len(columns)} as in line 1; train again")
            for column, field, kept in zip(columns, row, values, strict=True):
                try:
                    kept.append(float(field) if field.strip() else None)
                except ValueError:
                    raise UserError(f"{where}, column {column!r}: {field!r} is not a number; train again") from None
    return dict(zip(columns, map(tuple, values), strict=True))


def history_series(
    history: Mapping[str, Sequence[float | None]] | None, column: str, name: str, x: str = "step"
) -> Series:
    """One column of a history over another, as a line of a curve; empty where either is missing.

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


def summary_table(metrics: Sequence[Metric], title: str = "What was learned") -> Table:
    """Each task's metric beside its baseline, and how many times the baseline it is."""
    rows: list[tuple[Cell, ...]] = []
    for metric in metrics:
        baseline, ratio = f"{_cell(metric.baseline, 3)} ({metric.baseline_name})", None
        if metric.value is not None and metric.baseline is not None:
            ratio = _ratio(metric.value / metric.baseline) if metric.baseline > 0 else "baseline is 0"
        rows.append((metric.task, metric.name, metric.value, baseline, ratio))
    return Table(title, ("task", "metric", "value", "baseline", "ratio"), tuple(rows), "llrrr")


def _ratio(value: float) -> str:
    """One decimal; two below 2, and two significant digits where those show too little, as of errors."""
    if value >= 2:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.2g}"


def wholebody_table(
    metrics: Mapping[str, Mapping[str, float | None]] | None, title: str = "Whole-body pose by part"
) -> Table:
    """AP and AR of the parts measured, from the dictionary that `tcformer.metrics.evaluate_wholebody` gives.

    None in it says that there is nothing to find (no person of that size or part); the table says so.
    """
    parts = {
        "body": "body",
        "foot": "foot",
        "face": "face",
        "lefthand": "left hand",
        "righthand": "right hand",
        "hand": "hands",
        "wholebody": "whole body",
    }
    columns = ("AP", "AP50", "AP75", "APM", "APL", "AR")
    note = (
        "AP, AR: mean over OKS thresholds 0.50 to 0.95. M, L: persons of 32² to 96² pixels, and larger. "
        "Hands: the mean of left and right, as published."
    )
    if metrics is None:
        return Table(title, ("part", *columns), (), note=note)
    values = {part: [metrics[part].get(column) for column in columns] for part in parts if part in metrics}
    if any(None in row for row in values.values()):
        note += " none: the annotations hold no such person."
    rows = tuple((parts[part], *("none" if v is None else v for v in row)) for part, row in values.items())
    return Table(title, ("part", *columns), rows, note=note)


def face_table(metrics: Mapping[str, Mapping[str, Any]] | None, title: str = "Face landmarks by attribute") -> Table:
    """NME, failure rate and AUC on the full test set and its subsets, from `tcformer.metrics.evaluate_face`."""
    columns = ("faces", "NME", "FR@10%", "AUC@10%")
    note = "NME: mean distance of the 98 points over the distance between the outer eye corners."
    rows = _named_rows(metrics, ("count", "NME", "FR10", "AUC10"))
    return Table(title, ("subset", *columns), rows, note=note)


def mesh_table(metrics: Mapping[str, Mapping[str, Any]] | None, title: str = "Body mesh by test set") -> Table:
    """Errors of the 14 joints in millimetres, of each test set."""
    columns = ("people", "MPJPE", "PA-MPJPE")
    note = "Millimetres. MPJPE: joints relative to the pelvis; PA: after the best similarity transform."
    return Table(
        title, ("test set", *columns), _named_rows(metrics, ("count", "mpjpe", "pa_mpjpe")), digits=1, note=note
    )


def _named_rows(
    metrics: Mapping[str, Mapping[str, Any]] | None, names: tuple[str, ...]
) -> tuple[tuple[Cell, ...], ...]:
    groups = {} if metrics is None else {name: values for name, values in metrics.items() if name != "baseline"}
    return tuple((group, *(values.get(name) for name in names)) for group, values in groups.items())


def mapping_table(title: str, mapping: Mapping[str, Any] | None, columns: tuple[str, str] = ("name", "value")) -> Table:
    """Names and values (parameters, data hashes, versions); nested mappings get dotted names."""
    return Table(title, columns, () if mapping is None else tuple(_flat(mapping, "")), align="ll")


def _flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(_plain(item) for item in value)
        else:
            yield name, _plain(value)


def _plain(value: object) -> str:
    """A value as params.yaml would spell it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _cell(cell: Cell, digits: int) -> str:
    if cell is None:
        return NOT_RUN
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell and abs(cell) < 0.5 * 10**-digits:
        return f"{cell:.2g}"
    return f"{cell:.{digits}f}"


# Markdown.


def _md(text: str) -> str:
    """Plain text as one line of Markdown that shows exactly it."""
    for mark in "\\`*[]|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def _markdown_section(section: Section) -> Iterator[str]:
    yield f"## {_md(section.title)}"
    yield from (_md(paragraph) for paragraph in _paragraphs(section.text))
    for part in section.parts:
        yield f"### {_md(part.title)}"
        if isinstance(part, Table):
            yield markdown_table(part)
            if part.note and part.rows:
                yield _md(part.note)
        elif isinstance(part, Picture):
            yield (f"![{_md(part.title)}](<{part.path}>)" if part.path else "The picture is in the HTML report.")
            if part.caption:
                yield _md(part.caption)
        elif not part.drawn:
            yield f"{_md(part.y_label)}: {NOT_RUN}"
        else:
            columns = (part.y_label, "points", "first", "lowest", "highest", "last", f"last {part.x_label}")
            rows = [_curve_row(series) for series in part.drawn]
            yield markdown_table(Table(part.title, columns, tuple(rows)))


def _curve_row(series: Series) -> tuple[Cell, ...]:
    values = series.y[0], min(series.y), max(series.y), series.y[-1], series.x[-1]
    return (series.name, len(series.x), *map(_short, values))


def markdown_table(table: Table) -> str:
    """A table without its title and note."""
    if not table.rows:
        return NOT_RUN
    rows = [[_md(_cell(cell, table.digits)) for cell in row] for row in table.rows]
    rule = ["---:" if right else "---" for right in table.right]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([_md(c) for c in table.columns], rule, *rows))


def _paragraphs(text: str) -> list[str]:
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


# HTML.

_STYLE = """
:root{--paper:#fff;--ink:#1c1e21;--quiet:#62676e;--rule:#e2e5e9;--soft:#f5f6f8;--link:#1d5fc4;
--c0:#2568cf;--c1:#cf5a1c;--c2:#178a63;--c3:#8a4fc4}
@media (prefers-color-scheme:dark){:root{--paper:#14161a;--ink:#e7e9ec;--quiet:#9aa1aa;--rule:#2c3138;
--soft:#1c1f24;--link:#85b4ff;--c0:#6fa8ff;--c1:#ff9a5c;--c2:#4fc79d;--c3:#bd93f5}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1180px;padding:28px 28px 64px;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 10px}
h2{font-size:1.3rem;line-height:1.3;margin:0 0 8px}
h3{font-size:1rem;margin:0 0 6px}
p{max-width:72ch;margin:0 0 12px}
a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:.92rem}
nav a{text-decoration:none;padding:3px 0}
section{border-top:1px solid var(--rule);margin-top:30px;padding-top:22px}
summary{cursor:pointer}
summary h2{display:inline;margin:0 0 0 2px}
details[open]>summary{margin-bottom:12px}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(310px,100%),1fr));gap:20px 28px;
margin:16px 0}
.curves figure{max-width:520px}
figure,.table{margin:18px 0 0}
.curves figure{margin:0}
figcaption,.note{color:var(--quiet);font-size:.875rem;max-width:80ch;margin:6px 0 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.94rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px 6px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--quiet);font-weight:500;white-space:nowrap}
tbody th{font-weight:500}
td.n,th.n{text-align:right;white-space:nowrap}
td.missing{color:var(--quiet);font-style:italic}
td.long{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.82rem;overflow-wrap:anywhere;
min-width:9em}
.scroll img{display:block;width:min(100%,var(--w));height:auto;border-radius:4px}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--quiet);font-size:11px;font-family:inherit}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .axis{stroke:var(--quiet);stroke-width:1}
svg .line{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.key{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:.82rem;color:var(--quiet);margin:6px 0 0}
.key span::before{content:"";display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:6px;
vertical-align:middle;background:var(--c)}
@media (max-width:640px){body{padding:18px 16px 48px}h1{font-size:1.55rem}
table{font-size:.84rem}th,td{padding-right:9px}thead th,td.n{white-space:normal}
.scroll img{width:min(820px,var(--w))}}
"""


def _html_section(section: Section, anchor: str) -> str:
    body = "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in _paragraphs(section.text))
    curves: list[Curve] = []
    for part in section.parts:
        if isinstance(part, Curve):
            curves.append(part)
            continue
        body += _html_curves(curves) + (_html_table(part) if isinstance(part, Table) else _html_picture(part))
        curves = []
    body += _html_curves(curves)
    heading = f"<h2>{escape(section.title)}</h2>"
    if section.folded:
        return f'<section id="{anchor}"><details><summary>{heading}</summary>\n{body}</details></section>\n'
    return f'<section id="{anchor}">{heading}\n{body}</section>\n'


def _html_table(table: Table) -> str:
    if not table.rows:
        return f'<div class="table"><h3>{escape(table.title)}</h3><p class="note">{NOT_RUN}</p></div>\n'
    right = table.right
    head = "".join(
        f"<th{' class=n' if right[i] else ''} scope=col>{escape(c)}</th>" for i, c in enumerate(table.columns)
    )
    rows = ""
    for row in table.rows:
        cells = f"<th scope=row>{escape(_cell(row[0], table.digits))}</th>"
        for i, cell in enumerate(row[1:], 1):
            text = _cell(cell, table.digits)
            kinds = [
                *(["n"] if right[i] else []),
                *(["missing"] if cell is None else []),
                *(["long"] if len(text) > 40 and " " not in text else []),
            ]
            cells += f'<td class="{" ".join(kinds)}">' if kinds else "<td>"
            cells += f"{escape(text)}</td>"
        rows += f"<tr>{cells}</tr>\n"
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    return (
        f'<div class="table"><h3>{escape(table.title)}</h3>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n{note}</div>\n"
    )


def _html_picture(picture: Picture) -> str:
    width, height = picture.size
    data = base64.b64encode(picture.png).decode("ascii")
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>\n" if picture.caption else ""
    return (
        f'<figure><h3>{escape(picture.title)}</h3>\n<div class="scroll"><img alt="{escape(picture.title)}" '
        f'width="{width}" height="{height}" style="--w:{width}px" '
        f'src="data:image/png;base64,{data}"></div>\n'
        f"{caption}</figure>\n"
    )


def _html_curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    return f'<div class="curves">\n{"".join(map(_html_curve, curves))}</div>\n'


def _html_curve(curve: Curve) -> str:
    title = f"<h3>{escape(curve.title)}</h3>\n"
    if not curve.drawn:
        return f"<figure>{title}<figcaption>{escape(curve.y_label)}: {NOT_RUN}</figcaption></figure>\n"
    key = ""
    if len(curve.drawn) > 1:
        names = "".join(
            f'<span style="--c:var(--c{i})">{escape(series.name)}</span>' for i, series in enumerate(curve.drawn)
        )
        key = f'<div class="key">{names}</div>\n'
    last = ", ".join(
        f"{f'{s.name} ' if len(curve.drawn) > 1 else ''}{_short(s.y[-1])} at {_short(s.x[-1])}" for s in curve.drawn
    )
    binned = max(-(-len(series.x) // _MOST_POINTS) for series in curve.drawn)
    mean = f" Each point is the mean of up to {binned} logged values." if binned > 1 else ""
    return f"<figure>{title}{_svg(curve)}\n{key}<figcaption>Last: {escape(last)}.{mean}</figcaption></figure>\n"


# Curves: a page's column wide at its natural size, so that the letters stay readable on a phone.

_MOST_POINTS = 240
_WIDTH, _HEIGHT = 360, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 350, 24, 178


def _svg(curve: Curve) -> str:
    lines = [_binned(series) for series in curve.drawn]
    xs = [x for series in lines for x in series.x]
    ys = [y for series in lines for y in series.y]
    log = curve.log_y and min(ys) > 0
    # A training that starts at step 1 is drawn from 0.
    x_low, x_high = 0.0 if 0 < min(xs) < 0.1 * max(xs) else min(xs), max(xs)
    x_ticks = _ticks(x_low, x_high, 5)
    y_ticks = _log_ticks(min(ys), max(ys)) if log else _ticks(min(ys), max(ys), 5)
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at_x(x: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (_share(x, x_low, x_high))

    def at_y(y: float) -> float:
        share = _share(math.log(y), math.log(y_low), math.log(y_high)) if log else _share(y, y_low, y_high)
        return _BOTTOM - (_BOTTOM - _TOP) * share

    label = escape(f"{curve.title}: {curve.y_label} over {curve.x_label}")
    out = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for y in y_ticks:
        out.append(f'<path class="grid" d="M{_LEFT} {at_y(y):.1f}H{_RIGHT}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            out.append(f'<path class="axis" d="M{at_x(x):.1f} {_BOTTOM}v4"/>')
            out.append(f'<text x="{at_x(x):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{_short(x)}</text>')
    out.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    out.append(f'<text x="0" y="11">{escape(curve.y_label)}{", logarithmic" if log else ""}</text>')
    out.append(f'<text x="{_RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escape(curve.x_label)}</text>')
    for i, series in enumerate(lines):
        points = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(series.x, series.y, strict=True))
        out.append(f'<path class="line" style="stroke:var(--c{i})" d="M{points}"/>')
        end = f'cx="{at_x(series.x[-1]):.1f}" cy="{at_y(series.y[-1]):.1f}"'
        out.append(f'<circle {end} r="2.75" style="fill:var(--c{i})"/>')
    return "".join([*out, "</svg>"])


def _binned(series: Series) -> Series:
    """At most `_MOST_POINTS` points: means over runs of equally many neighbours."""
    run = -(-len(series.x) // _MOST_POINTS)
    starts = range(0, len(series.x), run)
    return Series(
        series.name,
        tuple(math.fsum(series.x[i : i + run]) / len(series.x[i : i + run]) for i in starts),
        tuple(math.fsum(series.y[i : i + run]) / len(series.y[i : i + run]) for i in starts),
    )


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Up to about `most` multiples of 1, 2 or 5 times a power of ten that enclose [low, high]."""
    if high == low:
        pad = abs(high) / 2 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Decades that enclose [low, high], with 2 and 5 between them where there are at most two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, -(-(last - first) // 5))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    marks = [float(f"{f}e{e}") for e in range(first, last + stride + 1, stride) for f in factors]
    start = max((i for i, mark in enumerate(marks) if mark <= low), default=0)
    stop = min(i for i, mark in enumerate(marks) if mark >= high and i > start)
    return marks[start : stop + 1]


def _short(value: float) -> str:
    """A number in few letters: 12k, 1.5M, 0.003, 2e-5."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    if value and size < 1e-4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"

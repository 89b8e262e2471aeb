"""The report in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.report.numbers import NOT_RUN, cell_text, short_text
from pipelines.report.parts import BarGroup, Bars, Curve, Inspector, Picture, Report, Section, Series
from tcformer.tables import Cell, Table


def to_markdown(report: Report) -> str:
    """The whole report; a curve becomes a table of its first, lowest, highest and last value.

    A group of bars becomes a row with its lowest and its highest bar.
    """
    blocks = [f"# {_escaped(report.title)}", *(block for section in report.sections for block in _section(section))]
    return "\n\n".join(blocks) + "\n"


def table_to_markdown(table: Table) -> str:
    """A table without its title and note."""
    if not table.rows:
        return NOT_RUN
    rows = [[_escaped(cell_text(cell, table.digits)) for cell in row] for row in table.rows]
    rule = ["---:" if right else "---" for right in table.right_aligned]
    lines = ([_escaped(column) for column in table.columns], rule, *rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _section(section: Section) -> Iterator[str]:
    yield f"## {_escaped(section.title)}"
    yield from map(_escaped, section.paragraphs)
    for part in section.parts:
        yield f"### {_escaped(part.title)}"
        if isinstance(part, Table):
            yield table_to_markdown(part)
            if part.note and part.rows:
                yield _escaped(part.note)
        elif isinstance(part, Picture):
            yield (f"![{_escaped(part.title)}](<{part.path}>)" if part.path else "The picture is in the HTML report.")
            if part.caption:
                yield _escaped(part.caption)
        elif isinstance(part, Inspector):
            yield "The inspector is in the HTML report." if part.shown else NOT_RUN
        else:
            yield _bars(part) if isinstance(part, Bars) else _curve(part)


def _curve(curve: Curve) -> str:
    if not curve.drawn:
        return f"{_escaped(curve.y_label)}: {NOT_RUN}"
    columns = (curve.y_label, "points", "first", "lowest", "highest", "last", f"last {curve.x_label}")
    return table_to_markdown(Table(curve.title, columns, tuple(map(_series_row, curve.drawn))))


def _series_row(series: Series) -> tuple[Cell, ...]:
    values = series.y[0], min(series.y), max(series.y), series.y[-1], series.x[-1]
    return (series.name, len(series.x), *map(short_text, values))


def _bars(bars: Bars) -> str:
    if not bars.drawn:
        return f"{_escaped(bars.y_label)}: {NOT_RUN}"
    columns = ("part", "bars", "lowest", "at", "highest", "at")
    return table_to_markdown(Table(bars.title, columns, tuple(map(_bar_row, bars.drawn)), align="lrrlrl"))


def _bar_row(group: BarGroup) -> tuple[Cell, ...]:
    measured = [(value, name) for name, value in group.bars if value is not None]
    (low, lowest), (high, highest) = (choose(measured, key=lambda bar: bar[0]) for choose in (min, max))
    return group.name, len(measured), short_text(low), lowest, short_text(high), highest


def _escaped(text: str) -> str:
    """Plain text as one line of Markdown that shows exactly this text."""
    for mark in "\\`*[]|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())

"""Bar charts as SVG: where bars, names and tick marks lie. The page's template writes the elements."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.report.curves import Tick, linear_ticks
from pipelines.report.numbers import short_text
from pipelines.report.parts import Bars

_WIDTH = 1120  # of the page's text, pixels
_LEFT, _TOP, _BOTTOM = 46, 40, 200
_GAP = 12  # between groups
_WIDEST = 22.0  # from one bar to the next
_CHARACTER = 0.56  # mean width of a character in font sizes


@dataclass(frozen=True)
class Bar:
    """A bar: its left edge and height in pixels (None: not measured), its name, and what a pointer over it shows."""

    x: float
    height: float | None
    name: str
    text: str


@dataclass(frozen=True)
class LaidOutGroup:
    """A group's name, its left edge in pixels, and its bars."""

    name: str
    x: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Chart:
    """A bar chart laid out in its frame; all lengths in pixels.

    Attributes:
        label: what it shows, for people who cannot see it.
        width: of the drawing.
        height: of the drawing.
        y_ticks: of the vertical axis; each has a line across the frame.
        groups: from left to right.
        bar_width: of all bars.
        text_size: of the names below the bars.
        left: left edge of the axes.
        top: where the bars may end.
        bottom: where the bars begin.
    """

    label: str
    width: int
    height: int
    y_ticks: tuple[Tick, ...]
    groups: tuple[LaidOutGroup, ...]
    bar_width: float
    text_size: float
    left: int = _LEFT
    top: int = _TOP
    bottom: int = _BOTTOM


def lay_out_bars(bars: Bars) -> Chart:
    """Lay out a chart that has at least one value."""
    count = sum(len(group.bars) for group in bars.drawn)
    gaps = _GAP * (len(bars.drawn) - 1)
    pitch = min(_WIDEST, (_WIDTH - _LEFT - gaps) / count)
    ticks = linear_ticks(0.0, max(value for group in bars.drawn for value in group.values))
    scale = (_BOTTOM - _TOP) / ticks[-1]
    text_size = min(11.0, round(pitch + 0.3, 1))
    groups, x = [], float(_LEFT)
    for group in bars.drawn:
        placed = [
            Bar(
                x=x + number * pitch,
                height=None if value is None else scale * value,
                name=name,
                text=f"{name}: {'not measured' if value is None else short_text(value)}",
            )
            for number, (name, value) in enumerate(group.bars)
        ]
        groups.append(LaidOutGroup(group.name, x, tuple(placed)))
        x += max(len(group.bars) * pitch, _CHARACTER * 12 * len(group.name)) + _GAP  # room for its name too
    longest = max(len(name) for group in bars.drawn for name, _ in group.bars)
    return Chart(
        label=f"{bars.title}: {bars.y_label}",
        width=round(x - _GAP),
        height=round(_BOTTOM + 10 + longest * _CHARACTER * text_size),
        y_ticks=tuple(Tick(_BOTTOM - scale * tick, short_text(tick)) for tick in ticks),
        groups=tuple(groups),
        bar_width=0.8 * pitch,
        text_size=text_size,
    )

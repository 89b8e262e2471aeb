"""Curves as SVG: where the lines, tick marks and labels lie. The page's template writes the elements."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.report.numbers import short_text
from pipelines.report.parts import Curve, Series

_MOST_POINTS = 240


@dataclass(frozen=True)
class Frame:
    """Size of a drawing and edges of its axes, in pixels: as wide as a phone, so that the text stays readable."""

    width: int = 360
    height: int = 216
    left: int = 46
    right: int = 350
    top: int = 24
    bottom: int = 178


@dataclass(frozen=True)
class Tick:
    """A tick mark: its x or y in pixels, and the number beside it."""

    position: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A curve laid out in its frame.

    Attributes:
        label: what it shows, for people who cannot see it.
        x_ticks: of the horizontal axis.
        y_ticks: of the vertical axis; each has a line across the frame.
        lines: their points (x, y) in pixels.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        caption: a sentence below the curve: the last values.
        frame: of the drawing.
    """

    label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[list[tuple[float, float]], ...]
    x_label: str
    y_label: str
    caption: str
    frame: Frame = Frame()


def lay_out(curve: Curve) -> Plot:
    """Lay out a curve that has at least one point."""
    frame = Frame()
    lines = [_averaged(series) for series in curve.drawn]
    xs = [x for series in lines for x in series.x]
    ys = [y for series in lines for y in series.y]
    log = curve.log_y and min(ys) > 0
    # The curve of a training whose first logged step is not 0 begins at 0.
    x_low, x_high = 0.0 if 0 < min(xs) < 0.1 * max(xs) else min(xs), max(xs)
    y_ticks = log_ticks(min(ys), max(ys)) if log else linear_ticks(min(ys), max(ys))
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at_x(x: float) -> float:
        return frame.left + (frame.right - frame.left) * _share(x, x_low, x_high)

    def at_y(y: float) -> float:
        share = _share(math.log(y), math.log(y_low), math.log(y_high)) if log else _share(y, y_low, y_high)
        return frame.bottom - (frame.bottom - frame.top) * share

    return Plot(
        label=f"{curve.title}: {curve.y_label} over {curve.x_label}",
        x_ticks=tuple(Tick(at_x(x), short_text(x)) for x in linear_ticks(x_low, x_high) if x_low <= x <= x_high),
        y_ticks=tuple(Tick(at_y(y), short_text(y)) for y in y_ticks),
        lines=tuple([(at_x(x), at_y(y)) for x, y in zip(series.x, series.y, strict=True)] for series in lines),
        x_label=curve.x_label,
        y_label=f"{curve.y_label}, logarithmic" if log else curve.y_label,
        caption=_caption(curve),
        frame=frame,
    )


def _caption(curve: Curve) -> str:
    several = len(curve.drawn) > 1
    last = ", ".join(
        f"{f'{series.name} ' if several else ''}{short_text(series.y[-1])} at {short_text(series.x[-1])}"
        for series in curve.drawn
    )
    values = max(_values_per_point(series) for series in curve.drawn)
    mean = f" Each point is the mean of up to {values} logged values." if values > 1 else ""
    return f"Last: {last}.{mean}"


def _values_per_point(series: Series) -> int:
    return -(-len(series.x) // _MOST_POINTS)


def _averaged(series: Series) -> Series:
    """At most `_MOST_POINTS` points, each the mean of equally many neighbours."""
    count = _values_per_point(series)
    starts = range(0, len(series.x), count)
    return Series(
        series.name,
        tuple(_mean(series.x[start : start + count]) for start in starts),
        tuple(_mean(series.y[start : start + count]) for start in starts),
    )


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Up to about `most` multiples of 1, 2 or 5 times a power of ten that enclose [low, high]."""
    if high == low:
        pad = abs(high) / 2 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose [low, high], with 2 and 5 times them where there are at most two decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, -(-(last - first) // 5))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    marks = [float(f"{f}e{e}") for e in range(first, last + stride + 1, stride) for f in factors]
    start = max((i for i, mark in enumerate(marks) if mark <= low), default=0)
    stop = min(i for i, mark in enumerate(marks) if mark >= high and i > start)
    return marks[start : stop + 1]

"""What a report is made of: sections of tables (`tcformer.tables.Table`), pictures, curves and bars."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tcformer.errors import UserError
from tcformer.tables import Table

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG picture.

    Attributes:
        title: what it shows; also its text for people who cannot see it.
        png: the bytes of the file, which the HTML page embeds.
        caption: a few sentences below it, or "".
        path: of the file, relative to the Markdown report; "" if there is no file.

    Raises:
        ValueError: the bytes are not a PNG.
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
    """One line of a curve: y over x.

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
                    f"report curve {self.name!r}: the point is ({x}, {y}); expected finite numbers; train again, or "
                    "remove the row from the history file"
                )


@dataclass(frozen=True)
class Curve:
    """Lines over one pair of axes.

    Attributes:
        title: what it shows.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        series: up to four lines; without any point, the curve reads "not run".
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
        """The series that have at least one point."""
        return tuple(series for series in self.series if series.x)


@dataclass(frozen=True)
class BarGroup:
    """Bars of one colour under one name.

    Attributes:
        name: of the group.
        bars: the name and the value of each bar, at least 0; None where nothing was measured.
    """

    name: str
    bars: tuple[tuple[str, float | None], ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The measured values."""
        return tuple(value for _, value in self.bars if value is not None)

    def __post_init__(self) -> None:
        for name, value in self.bars:
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(
                    f"report bars {self.name!r}: {name!r} is {value}; expected a finite number of at least 0; run the "
                    "stage that measures it again"
                )


@dataclass(frozen=True)
class Bars:
    """Groups of bars over one vertical axis that starts at 0.

    Attributes:
        title: what it shows.
        y_label: name and unit of the axis.
        groups: from left to right; without any value, the chart reads "not run".
    """

    title: str
    y_label: str
    groups: tuple[BarGroup, ...]

    @property
    def drawn(self) -> tuple[BarGroup, ...]:
        """The groups that have at least one value."""
        return tuple(group for group in self.groups if group.values)


@dataclass(frozen=True)
class Inspector:
    """Pictures whose tokens a reader of the HTML page can point at; a report has at most one.

    Attributes:
        title: what it shows.
        pictures: name of a group -> its pictures, as `inspected` (pipelines/visualization/token_inspection.py) returns
            them.
    """

    title: str
    pictures: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def shown(self) -> tuple[Mapping[str, Any], ...]:
        """The pictures of all groups, in order."""
        return tuple(picture for group in self.pictures.values() for picture in group)


#: What a section may contain.
Part: TypeAlias = Table | Picture | Curve | Bars | Inspector


@dataclass(frozen=True)
class Section:
    """A heading, text, and what follows it.

    Attributes:
        title: the heading.
        parts: tables, pictures, curves, bars and the inspector, in order.
        text: plain text, its paragraphs separated by empty lines, or "".
        folded: the HTML page shows only the heading until the reader opens it; for long tables.
    """

    title: str
    parts: tuple[Part, ...] = ()
    text: str = ""
    folded: bool = False

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The paragraphs of the text, each in one line."""
        return tuple(" ".join(block.split()) for block in self.text.split("\n\n") if block.strip())


@dataclass(frozen=True)
class Report:
    """All sections, in order, under one title.

    Raises:
        ValueError: no sections.
    """

    title: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        if not self.sections:
            raise ValueError(f"report {self.title!r} has no sections")

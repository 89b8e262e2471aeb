"""Galleries: pictures of any shape in rows of equal width, under headings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcformer.draw.pictures import check_picture
from tcformer.draw.text import GREY, text_width, write_text

_GAP = 6  # between pictures, pixels
_MARGIN = 10  # around the page, pixels
_HIGHEST = 1.3  # height of a row over the wanted height
_WHITE = 255
_PAGE_WIDTH = 1150  # width at which documents show a page, pixels


@dataclass(frozen=True)
class GalleryBlock:
    """Pictures under one heading.

    Attributes:
        title: the heading.
        second: grey text beside it, or "".
        rows: pictures (H, W, 3) uint8 RGB; all pictures of a row have the same height.
        legend: makes a picture of a width and a font size in pixels, for the right end of the heading's line; or None.
    """

    title: str
    second: str
    rows: Sequence[Sequence[NDArray[np.uint8]]]
    legend: Callable[[int, int], NDArray[np.uint8]] | None = None


def row_sizes(aspects: Sequence[float], width: int, height: int) -> list[list[tuple[int, int]]]:
    """Sizes of pictures in rows of about the same length that are all as wide as the page.

    Args:
        aspects: width over height of each picture.
        width: of the page without margins, pixels.
        height: about that of a row, pixels. A row of few pictures may be narrower than the page, so that it is not much
            higher than this.

    Returns:
        For each row the width and the height of its pictures, in their order.
    """
    total = sum(aspects)
    count = max(1, round(total * height / width))
    rows: list[list[float]] = [[] for _ in range(count)]
    place = 0.0
    for aspect in aspects:
        rows[int((place + aspect / 2) / total * count)].append(aspect)  # by its middle
        place += aspect
    sizes = []
    for row in filter(None, rows):
        high = min(_row_height(row, width), _HIGHEST * height)
        sizes.append([(max(1, round(aspect * high)), max(1, round(high))) for aspect in row])
    return sizes


def _row_height(aspects: Sequence[float], width: int) -> float:
    return (width - _GAP * (len(aspects) - 1)) / sum(aspects)


def gallery(blocks: Sequence[GalleryBlock]) -> NDArray[np.uint8]:
    """Arrange blocks of pictures below each other on white.

    Raises:
        ValueError: if there is no picture.
    """
    rows = [row for block in blocks for row in block.rows]
    if not rows or not all(rows):
        raise ValueError("there are no pictures; expected at least one in each row")
    for picture in (picture for row in rows for picture in row):
        check_picture(picture)
    width = max(sum(p.shape[1] for p in row) + _GAP * (len(row) - 1) for row in rows)
    # Documents show all pages at about the same width, so the letters grow with the page.
    text_size = max(12, round(12 * width / _PAGE_WIDTH))
    width = max(width, *(_heading_width(block, text_size) for block in blocks))
    strips = [
        strip
        for block in blocks
        for strip in (_heading(block, width, text_size), *(_row(row, width) for row in block.rows))
    ]
    page = np.concatenate(strips)[:-_GAP]
    return np.pad(page, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=_WHITE)


def _title_size(text_size: int) -> int:
    return text_size * 5 // 4


def _second_at(block: GalleryBlock, text_size: int) -> int:
    return text_width(block.title, size=_title_size(text_size), bold=True) + text_size


def _legend_width(text_size: int) -> int:
    return 12 * text_size


def _heading_width(block: GalleryBlock, text_size: int) -> int:
    legend = 0 if block.legend is None else _GAP + _legend_width(text_size)
    return _second_at(block, text_size) + text_width(block.second, size=text_size) + legend


def _heading(block: GalleryBlock, width: int, text_size: int) -> NDArray[np.uint8]:
    strip = np.full((5 * text_size // 2, width, 3), _WHITE, np.uint8)
    baseline = 8 * text_size // 5
    write_text(strip, block.title, (0, baseline), size=_title_size(text_size), bold=True)
    write_text(strip, block.second, (_second_at(block, text_size), baseline), size=text_size, colour=GREY)
    if block.legend is not None:
        legend = block.legend(_legend_width(text_size), text_size)
        top = baseline - text_size // 3 - legend.shape[0] // 2
        strip[top : top + legend.shape[0], width - legend.shape[1] :] = legend
    return strip


def _row(pictures: Sequence[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    strip = np.full((max(p.shape[0] for p in pictures) + _GAP, width, 3), _WHITE, np.uint8)
    left = 0
    for picture in pictures:
        strip[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + _GAP
    return strip

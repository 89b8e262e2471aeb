"""Contact sheets: pictures in rows under small column titles, with the colour keys below."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcformer.data.face.landmarks import NUM_LANDMARKS
from tcformer.draw.faces import landmarks
from tcformer.draw.grid import check_picture
from tcformer.draw.people import keypoints, side_legend
from tcformer.draw.regions import enlarge, size_legend, token_sizes, tokens
from tcformer.draw.text import QUIET_INK, text_width, write

_GAP = 6
_MARGIN = 10
_PAPER = 255
_PAGE_WIDTH = 1150


@dataclass(frozen=True)
class Partition:
    """Which token every cell of the grid belongs to, at one stage and for one image.

    Attributes:
        token_of_cell: (N_init,) integers, row-major over the grid.
        grid_size: rows and columns of the grid.
    """

    token_of_cell: NDArray[np.integer]
    grid_size: tuple[int, int]

    @classmethod
    def regular(cls, size: tuple[int, int], grid_size: tuple[int, int]) -> "Partition":
        """Tokens that are the pixels of a map of `size`, over a grid at least as fine."""
        row = np.arange(grid_size[0]) * size[0] // grid_size[0]
        column = np.arange(grid_size[1]) * size[1] // grid_size[1]
        return cls((row[:, None] * size[1] + column).ravel(), grid_size)

    @property
    def num_tokens(self) -> int:
        """How many different tokens there are."""
        return len(np.unique(self.token_of_cell))


@dataclass(frozen=True)
class Example:
    """One row of a token sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB, what the network saw.
        partitions: the tokens of the stages, first stage first; as many in every row of a sheet.
        points: predicted points in pixels of the image, with confidences: (133, 3) whole-body keypoints or
            (98, 3) face landmarks; None draws none.
        truth: the same of the annotated points, drawn under the predicted ones in white; None draws none.
        drawn: a picture of a prediction that is no points, such as a body, as large as the sheet's others.
        label: a few words written above the row; "" writes none.
    """

    image: NDArray[np.uint8]
    partitions: Sequence[Partition]
    points: NDArray[np.floating] | None = None
    truth: NDArray[np.floating] | None = None
    label: str = ""
    drawn: NDArray[np.uint8] | None = None


def token_sheet(
    examples: Sequence[Example], *, scale: int = 3, border: int = 1, threshold: float = 0.3
) -> NDArray[np.uint8]:
    """Rows of [picture, tokens of each stage, token sizes of the last stage, prediction].

    All rows share one colour scale of token sizes. The column of predictions appears if any row has one.

    Args:
        examples: one row each; the images have one size.
        scale: whole factor by which pictures are larger than the images.
        border: width of the lines between tokens in pixels: 0, 1 or 2.
        threshold: predicted points with a confidence not above it are left out.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: no example, or rows with different numbers of partitions.
    """
    if not examples:
        raise ValueError("a token sheet needs at least one example")
    stages = len(examples[0].partitions)
    if stages == 0 or any(len(example.partitions) != stages for example in examples):
        counts = [len(example.partitions) for example in examples]
        raise ValueError(f"the examples have {counts} partitions; expected the same number, at least 1, in each")
    last = [np.unique(example.partitions[-1].token_of_cell, return_counts=True)[1] for example in examples]
    largest = max(int(sizes.max()) for sizes in last)
    posed = any(example.points is not None for example in examples)
    predicted = posed or any(example.drawn is not None for example in examples)
    rows = []
    for example in examples:
        row = [enlarge(example.image, scale)]
        for part in example.partitions:
            row.append(tokens(example.image, part.token_of_cell, part.grid_size, scale=scale, border=border))
        part, size = example.partitions[-1], (example.image.shape[0], example.image.shape[1])
        row.append(token_sizes(part.token_of_cell, part.grid_size, size, scale=scale, largest=largest))
        if example.points is not None:
            draw_points = landmarks if len(example.points) == NUM_LANDMARKS else keypoints
            row.append(
                draw_points(example.image, example.points, truth=example.truth, scale=scale, threshold=threshold)
            )
        elif predicted:
            row.append(enlarge(example.image, scale) if example.drawn is None else example.drawn)
        rows.append(row)
    titles = [
        ("picture", f"{examples[0].image.shape[1]} x {examples[0].image.shape[0]} pixels"),
        *((f"stage {stage + 1}", _count(examples, stage)) for stage in range(stages)),
        ("token size", "cells per token"),
        *([("keypoints" if posed else "body", "predicted")] if predicted else []),
    ]
    width = rows[0][0].shape[1]
    footers: list[NDArray[np.uint8] | None] = [None] * (stages + 1)
    # Read at about this width on a page, whatever the sheet's own: letters grow with the sheet.
    text_size = max(12, round(12 * len(rows[0]) * width / _PAGE_WIDTH))
    footers.append(size_legend(largest, width, text_size=text_size))
    if posed:
        truth = any(example.points is not None and example.truth is not None for example in examples)
        footers.append(side_legend(width, truth=truth, text_size=text_size))
    elif predicted:
        footers.append(None)
    labels = [example.label for example in examples]
    return sheet(rows, titles, footers=footers, labels=labels, text_size=text_size)


def sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    titles: Sequence[tuple[str, str]],
    *,
    footers: Sequence[NDArray[np.uint8] | None] = (),
    labels: Sequence[str] = (),
    text_size: int = 12,
) -> NDArray[np.uint8]:
    """Pictures in rows and columns on white, with a title and a quiet second line over each column.

    Args:
        rows: (H, W, 3) uint8 RGB pictures, as many in each row as there are titles. A column is as wide as
            its widest picture, a row as high as its highest.
        titles: title and second line of each column.
        footers: a picture or None under each column; () for none.
        labels: a line above each row, "" for none; () for none at all.
        text_size: height of the second lines' letters in pixels; titles are a quarter larger.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: the numbers of pictures, titles, footers or labels do not agree.
    """
    columns = len(titles)
    if not rows or columns == 0 or any(len(row) != columns for row in rows):
        raise ValueError(f"{columns} titles over rows of {[len(row) for row in rows]} pictures")
    if (footers and len(footers) != columns) or (labels and len(labels) != len(rows)):
        raise ValueError(f"{len(footers)} footers, {len(labels)} labels for {columns} columns, {len(rows)} rows")
    for picture in (*(p for row in rows for p in row), *(f for f in footers if f is not None)):
        check_picture(picture)
    placed_footers = list(footers) or [None] * columns
    title_size = text_size * 5 // 4
    widths = [
        max(
            *(row[c].shape[1] for row in rows),
            0 if (footer := placed_footers[c]) is None else footer.shape[1],
            text_width(titles[c][0], size=title_size, bold=True),
            text_width(titles[c][1], size=text_size),
        )
        for c in range(columns)
    ]
    lefts = [_MARGIN + sum(widths[:c]) + _GAP * c for c in range(columns)]
    heads = [2 * text_size if label else 0 for label in labels] or [0] * len(rows)
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    title_height = 4 * text_size
    bottom = title_height + sum(heads) + sum(heights) + _GAP * (len(rows) - 1)
    footer_height = max((_GAP + f.shape[0] for f in placed_footers if f is not None), default=0)
    width = lefts[-1] + widths[-1] + _MARGIN
    page = np.full((bottom + footer_height + _MARGIN, width, 3), _PAPER, np.uint8)
    for (title, second), left in zip(titles, lefts, strict=True):
        write(page, title, (left, 2 * text_size), size=title_size, bold=True)
        write(page, second, (left, 7 * text_size // 2), size=text_size, colour=QUIET_INK)
    top = title_height
    for number, row in enumerate(rows):
        if heads[number]:
            write(page, labels[number], (_MARGIN, top + 4 * text_size // 3), size=text_size)
            top += heads[number]
        for picture, left in zip(row, lefts, strict=True):
            _paste(page, picture, top, left)
        top += heights[number] + _GAP
    for placed, left in zip(placed_footers, lefts, strict=True):
        if placed is not None:
            _paste(page, placed, bottom + _GAP, left)
    return page


def _count(examples: Sequence[Example], stage: int) -> str:
    """The number of tokens of a stage, as text: a range where the images differ."""
    counts = [example.partitions[stage].num_tokens for example in examples]
    low, high = min(counts), max(counts)
    return f"{low} tokens" if low == high else f"{low} to {high} tokens"


def _paste(page: NDArray[np.uint8], picture: NDArray[np.uint8], top: int, left: int) -> None:
    page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture

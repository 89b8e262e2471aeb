"""Contact sheets: rows of pictures with column titles above and legends below."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcformer.data.face.landmarks import NUM_LANDMARKS
from tcformer.draw.face import landmarks
from tcformer.draw.pictures import check_picture, enlarge
from tcformer.draw.text import GREY, text_width, write_text
from tcformer.draw.token_regions import size_legend, token_sizes, tokens
from tcformer.draw.wholebody import keypoints, side_legend

_GAP = 6  # between pictures, pixels
_MARGIN = 10  # around the sheet, pixels
_WHITE = 255
_PAGE_WIDTH = 1150  # width at which documents show a sheet, pixels


@dataclass(frozen=True)
class Partition:
    """The token of each grid cell, at one stage and for one image."""

    token_of_cell: NDArray[np.integer]
    """(N_init,) row-major."""
    grid_size: tuple[int, int]
    """Rows and columns of the grid."""

    @classmethod
    def regular(cls, size: tuple[int, int], grid_size: tuple[int, int]) -> "Partition":
        """A partition whose tokens are the pixels of a feature map.

        Args:
            size: height and width of the map, not larger than the grid.
            grid_size: rows and columns of the grid.
        """
        row = np.arange(grid_size[0]) * size[0] // grid_size[0]
        column = np.arange(grid_size[1]) * size[1] // grid_size[1]
        return cls((row[:, None] * size[1] + column).ravel(), grid_size)

    @property
    def num_tokens(self) -> int:
        """The number of tokens."""
        return len(np.unique(self.token_of_cell))


@dataclass(frozen=True)
class Example:
    """One row of a token sheet."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, the input of the network."""
    partitions: Sequence[Partition]
    """The tokens of each stage; all rows of a sheet have the same number of stages."""
    points: NDArray[np.floating] | None = None
    """Predicted whole-body keypoints (133, 3) or face landmarks (98, 3): x, y in pixels of the image, confidence."""
    truth: NDArray[np.floating] | None = None
    """The annotated points in the same form, drawn in white below the predicted ones."""
    label: str = ""
    """Written above the row."""
    drawn: NDArray[np.uint8] | None = None
    """Instead of `points`: a picture of the prediction, such as a body, as large as the row's other pictures."""
    painter: Callable[..., NDArray[np.uint8]] | None = None
    """Draws `points` that are others than the above; it has the arguments of `keypoints`."""


def token_sheet(
    examples: Sequence[Example], *, scale: int = 3, border: int = 1, threshold: float = 0.3
) -> NDArray[np.uint8]:
    """Draw a contact sheet with the columns image, tokens of each stage, token sizes of the last stage, prediction.

    All rows have the same colours of token sizes. Without any prediction there is no such column.

    Args:
        examples: one per row; all images have the same size.
        scale: integer factor by which the pictures are larger than the images.
        border: width of the lines between tokens, pixels: 0, 1 or 2.
        threshold: predicted points whose confidence is not above it are not drawn.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: if there is no example, or the examples have different numbers of partitions.
    """
    if not examples:
        raise ValueError("there are no examples; expected at least one")
    stages = len(examples[0].partitions)
    if stages == 0 or any(len(example.partitions) != stages for example in examples):
        counts = [len(example.partitions) for example in examples]
        raise ValueError(f"the examples have {counts} partitions; expected the same number, at least 1, in each")
    largest = _largest_token(examples)
    with_points = any(example.points is not None for example in examples)
    with_predictions = with_points or any(example.drawn is not None for example in examples)
    rows = []
    for example in examples:
        row = [enlarge(example.image, scale)]
        row += _token_pictures(example, range(stages), largest, scale=scale, border=border)
        if example.points is not None:
            draw_points = example.painter or (landmarks if len(example.points) == NUM_LANDMARKS else keypoints)
            row.append(
                draw_points(example.image, example.points, truth=example.truth, scale=scale, threshold=threshold)
            )
        elif with_predictions:
            row.append(enlarge(example.image, scale) if example.drawn is None else example.drawn)
        rows.append(row)
    titles = [
        ("picture", f"{examples[0].image.shape[1]} x {examples[0].image.shape[0]} pixels"),
        *((f"stage {stage + 1}", _count(examples, stage)) for stage in range(stages)),
        ("token size", "cells per token"),
        *([("keypoints" if with_points else "body", "predicted")] if with_predictions else []),
    ]
    width = rows[0][0].shape[1]
    footers: list[NDArray[np.uint8] | None] = [None] * (stages + 1)
    text_size = _text_size(len(rows[0]) * width)
    footers.append(size_legend(largest, width, text_size=text_size))
    if with_points:
        truth = any(example.points is not None and example.truth is not None for example in examples)
        footers.append(side_legend(width, truth=truth, text_size=text_size))
    elif with_predictions:
        footers.append(None)
    labels = [example.label for example in examples]
    return contact_sheet(rows, titles, footers=footers, labels=labels, text_size=text_size)


def comparison_sheet(
    networks: Mapping[str, Sequence[Example]],
    *,
    stages: Sequence[int] | None = None,
    in_rows: bool = False,
    scale: int = 3,
    border: int = 1,
) -> NDArray[np.uint8]:
    """Draw the tokens of several networks for the same pictures.

    For each network there are the tokens of some stages and the token sizes of the last stage, the latter in the same
    colours for all networks.

    Args:
        networks: name of each network -> its examples, whose images are those of the first network.
        stages: indices of the drawn stages, from 0; None for all.
        in_rows: whether the networks are below each other; by default they are groups of columns.
        scale: integer factor by which the pictures are larger than the images.
        border: width of the lines between tokens, pixels: 0, 1 or 2.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: if there is no network, or the networks have different numbers of examples, or none.
    """
    counts = {name: len(examples) for name, examples in networks.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"the networks have these numbers of examples: {counts}; expected the same, at least 1")
    largest = max(_largest_token(examples) for examples in networks.values())
    drawn = {
        name: [
            _token_pictures(
                example,
                range(len(example.partitions)) if stages is None else stages,
                largest,
                scale=scale,
                border=border,
            )
            for example in examples
        ]
        for name, examples in networks.items()
    }
    first = next(iter(networks.values()))
    images = [enlarge(example.image, scale) for example in first]
    picture = ("picture", f"{first[0].image.shape[1]} x {first[0].image.shape[0]} pixels")
    shown = range(len(first[0].partitions)) if stages is None else stages
    if in_rows:
        rows = [[image, *drawn[name][number]] for number, image in enumerate(images) for name in networks]
        labels = [name for _ in images for name in networks]
        titles = [picture, *((f"stage {stage + 1}", "") for stage in shown), ("token size", "cells per token")]
        legends = 1
    else:
        rows = [[image, *(p for name in networks for p in drawn[name][number])] for number, image in enumerate(images)]
        labels = []
        titles = [picture]
        for name, examples in networks.items():
            seconds = [*(f"stage {stage + 1}, {_count(examples, stage)}" for stage in shown), "cells per token"]
            titles += [(name if number == 0 else "", second) for number, second in enumerate(seconds)]
        legends = len(networks)
    width = images[0].shape[1]
    text_size = _text_size(len(titles) * width)
    legend = size_legend(largest, width, text_size=text_size)
    footers = [None, *([*[None] * len(shown), legend] * legends)]
    return contact_sheet(rows, titles, footers=footers, labels=labels, text_size=text_size)


def _token_pictures(
    example: Example, stages: Sequence[int], largest: int, *, scale: int, border: int
) -> list[NDArray[np.uint8]]:
    """The tokens of some stages, and the token sizes of the last stage."""
    row = []
    for stage in stages:
        part = example.partitions[stage]
        row.append(tokens(example.image, part.token_of_cell, part.grid_size, scale=scale, border=border))
    part, size = example.partitions[-1], (example.image.shape[0], example.image.shape[1])
    row.append(token_sizes(part.token_of_cell, part.grid_size, size, scale=scale, largest=largest))
    return row


def _largest_token(examples: Sequence[Example]) -> int:
    """The number of cells of the largest token of the last stage."""
    last = [np.unique(example.partitions[-1].token_of_cell, return_counts=True)[1] for example in examples]
    return max(int(sizes.max()) for sizes in last)


def _text_size(width: int) -> int:
    """Font size on a sheet of some width: documents show all sheets at about the same width."""
    return max(12, round(12 * width / _PAGE_WIDTH))


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    titles: Sequence[tuple[str, str]],
    *,
    footers: Sequence[NDArray[np.uint8] | None] = (),
    labels: Sequence[str] = (),
    text_size: int = 12,
) -> NDArray[np.uint8]:
    """Arrange pictures in rows and columns on white.

    Args:
        rows: pictures (H, W, 3) uint8 RGB, one per column in each row. A column is as wide as its widest picture, a row
            as high as its highest.
        titles: title and grey second line of each column.
        footers: a picture or None below each column; () for no footers.
        labels: a line of text above each row, "" for none; () for no labels.
        text_size: font size of second lines and labels, pixels; titles are a quarter larger.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: if the numbers of pictures, titles, footers or labels do not match.
    """
    columns = len(titles)
    if not rows or columns == 0 or any(len(row) != columns for row in rows):
        raise ValueError(f"the rows have {[len(row) for row in rows]} pictures; expected one per title, {columns}")
    if (footers and len(footers) != columns) or (labels and len(labels) != len(rows)):
        raise ValueError(
            f"there are {len(footers)} footers and {len(labels)} labels; expected none or one for each of the "
            f"{columns} columns and {len(rows)} rows"
        )
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
    label_heights = [2 * text_size if label else 0 for label in labels] or [0] * len(rows)
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    title_height = 4 * text_size
    bottom = title_height + sum(label_heights) + sum(heights) + _GAP * (len(rows) - 1)
    footer_height = max((_GAP + f.shape[0] for f in placed_footers if f is not None), default=0)
    width = lefts[-1] + widths[-1] + _MARGIN
    page = np.full((bottom + footer_height + _MARGIN, width, 3), _WHITE, np.uint8)
    for (title, second), left in zip(titles, lefts, strict=True):
        write_text(page, title, (left, 2 * text_size), size=title_size, bold=True)
        write_text(page, second, (left, 7 * text_size // 2), size=text_size, colour=GREY)
    top = title_height
    for number, row in enumerate(rows):
        if label_heights[number]:
            write_text(page, labels[number], (_MARGIN, top + 4 * text_size // 3), size=text_size)
            top += label_heights[number]
        for picture, left in zip(row, lefts, strict=True):
            _paste(page, picture, top, left)
        top += heights[number] + _GAP
    for placed, left in zip(placed_footers, lefts, strict=True):
        if placed is not None:
            _paste(page, placed, bottom + _GAP, left)
    return page


def _count(examples: Sequence[Example], stage: int) -> str:
    """The number of tokens of a stage as text; a range if it differs between the images."""
    counts = [example.partitions[stage].num_tokens for example in examples]
    low, high = min(counts), max(counts)
    return f"{low} tokens" if low == high else f"{low} to {high} tokens"


def _paste(page: NDArray[np.uint8], picture: NDArray[np.uint8], top: int, left: int) -> None:
    page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture

"""Errors of each keypoint over a test set, and their means over parts: end-point error, normalised error, PCK.

docs/measures.md gives the formulas and their sources. Measures are means over annotated points: a keypoint that is
annotated in ten persons counts ten times in the mean of its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: PCK counts a point as correct if its error is below this fraction of the reference length. 0.05 is the default of
#: mmpose's `PCKAccuracy`, 0.1 the threshold of Yang and Ramanan (TPAMI 2013), who defined PCK.
PCK_THRESHOLDS: Final = (0.05, 0.1)

#: Name of the mean over all parts.
ALL: Final = "all"


@dataclass(frozen=True)
class Skipped:
    """Says why something was not measured."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """What the file says that would contain the measures."""
        return {"skipped": self.reason}


@dataclass(frozen=True, eq=False)
class PointTable:
    """Measures of each of K keypoints over a test set.

    Attributes:
        names: of the keypoints.
        parts: the part that each keypoint belongs to.
        count: (K,) number of annotated points that the measures of a keypoint are means over.
        measures: (K,) float64 for each measure; NaN where the count is 0. The first measure is the one to be drawn.
        meaning: what each measure is, with its unit, in a few words.

    Raises:
        ValueError: the lengths differ, or a measure has no meaning.
    """

    names: Sequence[str]
    parts: Sequence[str]
    count: NDArray[np.int64]
    measures: Mapping[str, NDArray[np.float64]]
    meaning: Mapping[str, str]

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.parts), len(self.count), *map(len, self.measures.values())}
        if len(lengths) > 1 or list(self.measures) != list(self.meaning):
            raise ValueError(
                f"table of keypoints: lengths {sorted(lengths)}, measures {list(self.measures)}, meanings of "
                f"{list(self.meaning)}; expected one length, and the same measures"
            )

    def by_part(self) -> dict[str, dict[str, float | None]]:
        """The mean of each measure over the annotated points of each part, and of all parts; None without a point."""
        of_part = np.array(self.parts)
        rows = {ALL: np.full(len(of_part), True), **{part: of_part == part for part in dict.fromkeys(self.parts)}}
        return {
            part: {name: _weighted_mean(values[chosen], self.count[chosen]) for name, values in self.measures.items()}
            for part, chosen in rows.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The meaning of the measures, their means by part, and a record for each keypoint."""
        columns = {name: [None if np.isnan(v) else float(v) for v in values] for name, values in self.measures.items()}
        records = [
            {
                "name": name,
                "part": part,
                "count": int(self.count[k]),
                **{measure: values[k] for measure, values in columns.items()},
            }
            for k, (name, part) in enumerate(zip(self.names, self.parts, strict=True))
        ]
        return {"measures": dict(self.meaning), "parts": self.by_part(), "keypoints": records}


#: Tables of keypoints by test set, or why there are none.
PointTables: TypeAlias = dict[str, PointTable] | Skipped


def image_point_table(
    pred: ArrayLike,
    gt: ArrayLike,
    labelled: ArrayLike,
    reference: ArrayLike,
    *,
    names: Sequence[str],
    parts: Sequence[str],
    reference_name: str,
) -> PointTable:
    """Measure points in images: NME (error over the reference length), EPE (pixels), PCK5 and PCK10.

    Args:
        pred: (N, K, 2) predicted points, pixels.
        gt: (N, K, 2) annotated points, pixels.
        labelled: (N, K) bool, the points that count.
        reference: (N,) length that errors are divided by, pixels, above 0.
        names: of the keypoints.
        parts: the part that each keypoint belongs to.
        reference_name: of the reference length, as in "error over ...".

    Raises:
        ValueError: the shapes do not fit, or a reference length is not above 0.
    """
    found, truth = np.asarray(pred, np.float64), np.asarray(gt, np.float64)
    counted, length = np.asarray(labelled, bool), np.asarray(reference, np.float64)
    if found.shape != truth.shape or found.shape != (*counted.shape, 2) or length.shape != counted.shape[:1]:
        raise ValueError(
            f"pred {found.shape}, gt {truth.shape}, labelled {counted.shape}, reference {length.shape}; expected "
            "(N, K, 2), (N, K, 2), (N, K), (N,)"
        )
    if not (length > 0).all():
        raise ValueError(f"a reference length is {length.min()}; expected all above 0")
    distance = np.linalg.norm(found - truth, axis=-1)  # (N, K)
    relative = distance / length[:, None]
    measures = {"NME": relative, "EPE": distance}
    meaning = {"NME": f"error over {reference_name}", "EPE": "error in pixels of the image"}
    for threshold in PCK_THRESHOLDS:
        name = f"PCK{100 * threshold:.0f}"
        measures[name] = relative < threshold
        meaning[name] = f"fraction of points with an error below {threshold:g} of {reference_name}"
    means = {name: mean_of_counted(values, counted) for name, values in measures.items()}
    return PointTable(names, parts, counted.sum(0), means, meaning)


def mean_of_counted(values: ArrayLike, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each column of (N, K) values over the rows that count there; NaN where none does.

    Args:
        values: (N, K); values that do not count may be NaN.
        counted: (N, K) bool.
    """
    count = counted.sum(0)
    total = np.where(counted, np.asarray(values, np.float64), 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _weighted_mean(values: NDArray[np.float64], count: NDArray[np.int64]) -> float | None:
    total = int(count.sum())
    return float(np.where(count > 0, values * count, 0.0).sum() / total) if total else None

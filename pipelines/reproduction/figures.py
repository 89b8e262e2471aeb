"""The headline figures of the sample recipe, by name."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipelines.layout import Layout
from tcformer.tables import measure_at


@dataclass(frozen=True)
class Figure:
    """A figure of an evaluation.

    Attributes:
        name: as in the tables.
        task: that is evaluated.
        keys: where it is in the task's metrics.json.
        digits: decimals in a table.
        over_baseline: whether it is the ratio to the same measure of the task's trivial answer.
    """

    name: str
    task: str
    keys: tuple[str, ...]
    digits: int = 3
    over_baseline: bool = False


FIGURES = (
    Figure("classification, top-1", "imagenet", ("top1",)),
    Figure("body AP", "wholebody", ("body", "AP")),
    Figure("foot AP", "wholebody", ("foot", "AP")),
    Figure("face AP", "wholebody", ("face", "AP")),
    Figure("hand AP", "wholebody", ("hand", "AP")),
    Figure("mean OKS, 133 points", "wholebody", ("oks",)),
    Figure("face landmarks, NME", "face", ("full", "NME"), digits=4),
    Figure("face landmarks, NME over the mean shape's", "face", ("full", "NME"), over_baseline=True),
    Figure("mesh, MPJPE in mm", "mesh", ("generated", "mpjpe"), digits=1),
    Figure("mesh, MPJPE over the mean body's", "mesh", ("generated", "mpjpe"), over_baseline=True),
    Figure("mesh, PA-MPJPE in mm", "mesh", ("generated", "pa_mpjpe"), digits=1),
    Figure("mesh, PA-MPJPE over the mean body's", "mesh", ("generated", "pa_mpjpe"), over_baseline=True),
)


def read_figures(layout: Layout) -> dict[str, float]:
    """The figures that the evaluations of a recipe have written; those that are missing are left out."""
    found = {}
    for figure in FIGURES:
        path = layout.run("evaluate", figure.task) / "metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        value, baseline = measure_at(metrics, figure.keys), measure_at(metrics, ("baseline", *figure.keys))
        if value is None or (figure.over_baseline and not baseline):
            continue
        found[figure.name] = value / baseline if figure.over_baseline and baseline else value
    return found

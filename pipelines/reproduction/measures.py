"""The headline measures of the sample recipe, by name."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.layout import Layout
from pipelines.report.read import read_json_object
from tcformer.tables import Metrics, measure_at
from tcformer.tasks import TASKS

RECIPE = "sample"


@dataclass(frozen=True)
class Measure:
    """A measure of an evaluation.

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


MEASURES = (
    Measure("classification, top-1", "imagenet", ("top1",)),
    Measure("body AP", "wholebody", ("body", "AP")),
    Measure("foot AP", "wholebody", ("foot", "AP")),
    Measure("face AP", "wholebody", ("face", "AP")),
    Measure("hand AP", "wholebody", ("hand", "AP")),
    Measure("mean OKS, 133 points", "wholebody", ("oks",)),
    Measure("face landmarks, NME", "face", ("full", "NME"), digits=4),
    Measure("face landmarks, NME over the mean shape's", "face", ("full", "NME"), over_baseline=True),
    Measure("mesh, MPJPE in mm", "mesh", ("generated", "mpjpe"), digits=1),
    Measure("mesh, MPJPE over the mean body's", "mesh", ("generated", "mpjpe"), over_baseline=True),
    Measure("mesh, PA-MPJPE in mm", "mesh", ("generated", "pa_mpjpe"), digits=1),
    Measure("mesh, PA-MPJPE over the mean body's", "mesh", ("generated", "pa_mpjpe"), over_baseline=True),
)


def read_metrics(layout: Layout) -> dict[str, Metrics | None]:
    """The metrics.json of each task's evaluation; None where there is none."""
    return {task: read_json_object(layout.run("evaluate", task) / "metrics.json") for task in TASKS}


def read_measures(layout: Layout) -> dict[str, float]:
    """The value of each measure that the evaluations of a recipe have written; those that are missing are left out."""
    metrics, found = read_metrics(layout), {}
    for measure in MEASURES:
        of_task = metrics[measure.task]
        value, baseline = measure_at(of_task, measure.keys), measure_at(of_task, ("baseline", *measure.keys))
        if value is None or (measure.over_baseline and not baseline):
            continue
        found[measure.name] = value / baseline if measure.over_baseline and baseline else value
    return found

"""Measure a trained model on its test set: runs/<recipe>/evaluate/<task>/."""

import dataclasses
from pathlib import Path

from pipelines.datasets.prepared import Prepared
from pipelines.evaluation import evaluate, record
from pipelines.process import stage_main
from pipelines.training.loop import WEIGHTS
from stages.common import begin
from tcformer.tasks import TASKS


def main() -> None:
    """Run the stage."""
    arguments, params, layout = begin(__doc__, tuple(TASKS))
    task = arguments.task
    section = getattr(params.active.evaluate, task)
    weights = (layout.run("pretrain") if task == "imagenet" else layout.run("finetune", task)) / WEIGHTS
    chosen = getattr(section, "options", None)  # a task without choices has none
    options = dataclasses.asdict(chosen) if chosen else None
    root = Path(section.data_root) if section.data_root else Prepared.open(layout.data(task)).root
    out = layout.run("evaluate", task)
    metrics = evaluate(task, weights, root, options, section.batch, params, out)
    record(weights, f"evaluate@{task}", params, metrics, [out / "metrics.json"])


if __name__ == "__main__":
    stage_main(main)

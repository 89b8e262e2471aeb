"""What `dvc plots` draws: for each task curves of loss and validation, and bars by part, from columns that exist."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from pipelines.layout import Layout
from tcformer.tasks import TASKS
from tests.imports import ROOT
from tests.places import plotted_columns


@pytest.mark.parametrize("task", list(TASKS))
def test_each_task_is_drawn(task: str) -> None:
    layout = Layout("${recipe}", ROOT)
    columns = plotted_columns(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8")))
    training = layout.training(task).relative_to(ROOT).as_posix()
    assert columns[f"{training}/training.csv"] == {"loss", "step"}
    measure = TASKS[task].part("task").TASK.validation_measure.name
    assert columns[f"{training}/validation.csv"] == {"val_loss", f"val_{measure}", "step"}
    parts = layout.run("evaluate", task).relative_to(ROOT).as_posix()
    assert columns[f"{parts}/parts.csv"] == {"part", "value"}

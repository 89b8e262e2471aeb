"""The tasks by name."""

from pathlib import Path

import pytest

from tcformer.data import collate
from tcformer.tasks import TASKS
from tests.small import generate, parameters


def test_tasks_by_name() -> None:
    assert [task.name for task in TASKS.values()] == list(TASKS) == ["imagenet", "wholebody", "face", "mesh"]
    assert all(entry.part("task").TASK.name == name for name, entry in TASKS.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_measure_that_chooses_the_best_weights_is_one_of_the_validation(name: str, tmp_path: Path) -> None:
    params = parameters(tmp_path)
    task = params.sample.spec_of(name).build(generate(name, params, tmp_path))
    sums = task.validate(task.build_model().eval(), collate([task.val_set().sample(0, None)]))
    assert f"{task.validation_measure.name}_sum" in sums

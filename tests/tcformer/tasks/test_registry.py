"""The tasks by name."""

from tcformer.tasks import TASKS


def test_tasks_by_name() -> None:
    assert [task.name for task in TASKS.values()] == list(TASKS) == ["imagenet", "wholebody", "face", "mesh"]
    assert all(entry.part("task").TASK.name == name for name, entry in TASKS.items())

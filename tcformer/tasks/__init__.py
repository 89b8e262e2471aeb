"""The tasks that networks are trained for."""

from tcformer.tasks.base import Batch, Dataset, Model, Task, ValidationMeasure
from tcformer.tasks.registry import ALL_TASKS, FINETUNED, OWN_TASKS, PARTS, PRETRAINING, TASKS, TaskEntry, TaskSpec

__all__ = [
    "ALL_TASKS",
    "FINETUNED",
    "OWN_TASKS",
    "PARTS",
    "PRETRAINING",
    "TASKS",
    "Batch",
    "Dataset",
    "Model",
    "Task",
    "TaskEntry",
    "TaskSpec",
    "ValidationMeasure",
]

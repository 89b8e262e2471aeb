"""The tasks that networks are trained for."""

from tcformer.tasks.base import Batch, Dataset, Model, Task, ValidationMeasure
from tcformer.tasks.registry import FINETUNED, PARTS, PRETRAINING, TASKS, TaskEntry, TaskSpec

__all__ = [
    "FINETUNED",
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

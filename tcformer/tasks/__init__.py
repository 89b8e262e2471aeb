"""The problems that the network is trained on, by name."""

from collections.abc import Callable

from tcformer.tasks.base import Batch, Dataset, Model, Task
from tcformer.tasks.imagenet import ImagenetOptions, ImagenetTask
from tcformer.tasks.wholebody import WholebodyEvaluation, WholebodyOptions, WholebodyTask

#: Name -> class; an instance is made from the task's options and a data root.
TASKS: dict[str, Callable[..., Task]] = {"imagenet": ImagenetTask, "wholebody": WholebodyTask}

__all__ = [
    "TASKS",
    "Batch",
    "Dataset",
    "ImagenetOptions",
    "ImagenetTask",
    "Model",
    "Task",
    "WholebodyEvaluation",
    "WholebodyOptions",
    "WholebodyTask",
]

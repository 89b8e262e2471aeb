"""The problems that the network is trained on, by name."""

from collections.abc import Callable

from tcformer.tasks.base import Batch, Dataset, Model, Task
from tcformer.tasks.face import FaceEvaluation, FaceOptions, FaceTask
from tcformer.tasks.imagenet import ImagenetOptions, ImagenetTask
from tcformer.tasks.mesh import MeshEvaluation, MeshOptions, MeshTask
from tcformer.tasks.wholebody import WholebodyEvaluation, WholebodyOptions, WholebodyTask

#: Name -> class; an instance is made from the task's options, the network's, a data root and, where the task leaves a
#: choice, how it is measured.
TASKS: dict[str, Callable[..., Task]] = {
    "imagenet": ImagenetTask,
    "wholebody": WholebodyTask,
    "face": FaceTask,
    "mesh": MeshTask,
}

__all__ = [
    "TASKS",
    "Batch",
    "Dataset",
    "FaceEvaluation",
    "FaceOptions",
    "FaceTask",
    "ImagenetOptions",
    "ImagenetTask",
    "MeshEvaluation",
    "MeshOptions",
    "MeshTask",
    "Model",
    "Task",
    "WholebodyEvaluation",
    "WholebodyOptions",
    "WholebodyTask",
]

"""The tasks by name. A new task is a folder next to this file and a name in `TASKS`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tcformer.models.options import NetworkOptions
from tcformer.tasks.base import Task

if TYPE_CHECKING:
    from tcformer.draw import Partition
    from tcformer.inference import TaskPredictor
    from tcformer.metrics.points import PointTables
    from tcformer.metrics.tokens import Region
    from tcformer.tables import Metrics
    from tcformer.tasks.drawing import Drawn

#: The modules of a task's folder and the names that each of them defines. Each module is imported at its first use, so
#: that a stage depends only on the modules that it uses. A task whose predictions are drawn on whole pictures, in
#: figures of the paper, also has `scenes`, with `scene_set` and `draw_scene`. A task whose networks predict pictures
#: that are in no dataset also has `predict`, with `PREDICTOR`, a subclass of `tcformer.inference.TaskPredictor`. A task
#: that is measured in parts has `PART_MEASURE` in `report`: what the bars of `measures.parts` are.
PARTS: dict[str, tuple[str, ...]] = {
    "options": ("OPTIONS", "EVALUATION"),
    "task": ("TASK",),
    "measures": ("headline", "parts", "keypoints", "region"),
    "generate": ("OPTIONS", "generate"),
    "official": ("OFFICIAL",),
    "drawing": ("draw",),
    "report": ("TITLE", "DRAWN", "headlines", "tables"),
}


@dataclass(frozen=True)
class TaskEntry:
    """A task, whose parts are the modules of the folder `tcformer/tasks/<name>`.

    Attributes:
        name: of the task, of its folder, and of its sections in params.yaml and dvc.yaml.
        shares: tasks of whose code this one uses a part.
    """

    name: str
    shares: tuple[str, ...] = ()

    def part(self, name: str) -> ModuleType:
        """Import one of the modules of `PARTS`."""
        return import_module(f"tcformer.tasks.{self.name}.{name}")

    @property
    def options(self) -> type[Any]:
        """The dataclass of the task's options: its head, its samples, its losses."""
        options: type[Any] = self.part("options").OPTIONS
        return options

    @property
    def evaluation(self) -> type[Any] | None:
        """The dataclass of the options of the evaluation; None if there are none."""
        evaluation: type[Any] | None = self.part("options").EVALUATION
        return evaluation

    @property
    def predictor(self) -> type[TaskPredictor] | None:
        """What predicts any picture; None if the task predicts only samples of its datasets."""
        if find_spec(f"tcformer.tasks.{self.name}.predict") is None:
            return None
        predictor: type[TaskPredictor] = self.part("predict").PREDICTOR
        return predictor

    @property
    def generate_options(self) -> type[Any]:
        """The dataclass of the options of generated datasets."""
        options: type[Any] = self.part("generate").OPTIONS
        return options

    def draw(self, task: Task, sample: dict[str, Any], output: Any, partitions: list[Partition], scale: int) -> Drawn:
        """A sample with its tokens and its prediction, to be put on a sheet.

        Args:
            task: built from this entry.
            sample: of the task's validation set.
            output: of the network for the batch of this one sample, on the CPU.
            partitions: the regions of the tokens of each stage.
            scale: drawn pixels for a pixel of the crop.
        """
        drawn: Drawn = self.part("drawing").draw(task, sample, output, partitions, scale)
        return drawn

    def headline(self, metrics: Metrics) -> dict[str, float]:
        """The few numbers of metrics.json by which experiments are compared: one to three, with short names."""
        numbers: dict[str, float] = self.part("measures").headline(metrics)
        return numbers

    def parts(self, metrics: Metrics) -> dict[str, float]:
        """The main measure of each part, subset or test set in metrics.json, for a bar chart."""
        numbers: dict[str, float] = self.part("measures").parts(metrics)
        return numbers

    def keypoints(self, task: Task, predictions: list[dict[str, Any]]) -> PointTables:
        """The errors of each keypoint for each test set, or why there are none.

        Args:
            task: built from this entry, with evaluation options.
            predictions: for the whole test set.
        """
        tables: PointTables = self.part("measures").keypoints(task, predictions)
        return tables

    def region(self, task: Task, sample: dict[str, Any]) -> Region | None:
        """Where the person is in a sample of the task's validation set; None if the task has no such annotation.

        Args:
            task: built from this entry.
            sample: not augmented.
        """
        region: Region | None = self.part("measures").region(task, sample)
        return region


#: The task whose network all others start from.
PRETRAINING = "imagenet"

#: The tasks of dvc.yaml by name, in the order in which reports show them.
TASKS: dict[str, TaskEntry] = {name: TaskEntry(name) for name in (PRETRAINING, "wholebody", "face", "mesh")}

#: Tasks for datasets of the user's own. Their sections in params.yaml are optional, and dvc.yaml does not run them.
OWN_TASKS: dict[str, TaskEntry] = {"keypoints": TaskEntry("keypoints", shares=("wholebody",))}

#: All tasks by name, those of `OWN_TASKS` last.
ALL_TASKS: dict[str, TaskEntry] = {**TASKS, **OWN_TASKS}

#: Names of the tasks that start from the pretrained backbone.
FINETUNED: tuple[str, ...] = tuple(name for name in TASKS if name != PRETRAINING)


@dataclass(frozen=True)
class TaskSpec:
    """Everything that defines a task except its data. It is sent to the workers.

    Attributes:
        name: one of `ALL_TASKS`.
        options: an instance of the task's `options` dataclass.
        network: options of the backbone.
    """

    name: str
    options: Any
    network: NetworkOptions

    def build(self, data_root: Path, evaluation: object = None) -> Task:
        """Build the task for the data below `data_root`.

        Args:
            data_root: folder of the dataset in its official layout.
            evaluation: an instance of the task's `evaluation` dataclass; only needed to predict and to evaluate.
        """
        chosen = [] if evaluation is None else [evaluation]
        task: Task = ALL_TASKS[self.name].part("task").TASK(self.options, self.network, data_root, *chosen)
        return task

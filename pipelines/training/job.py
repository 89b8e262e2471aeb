"""A training as the driver hands it to its workers."""

from dataclasses import dataclass

from pipelines.datasets.location import DataLocation
from pipelines.params import InstructionSets, Training
from tcformer.tasks import TaskSpec


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs; it is pickled as it is.

    Attributes:
        name: of the stage, as part of a file name: "finetune-face".
        key: identity of the training, kept in the weights.
        task: the task with its options.
        data: where the worker finds the dataset.
        training: the parameters of the loop.
        store: root of the checkpoints and the final weights.
        initial: file in the store that the weights start from; None for random weights.
        loader_processes: processes of each worker that decode and augment.
        instruction_sets: with which the workers must compute.
    """

    name: str
    key: str
    task: TaskSpec
    data: DataLocation
    training: Training
    store: str
    initial: str | None
    loader_processes: int
    instruction_sets: InstructionSets = "native"

"""A training by what determines its result."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.datasets.prepared import Prepared
from pipelines.layout import Layout
from pipelines.params import InstructionSets, Params, Training, spec_to_json, training_section
from pipelines.provenance import code_version, versions
from pipelines.running.process import runs_locally
from tcformer.errors import UserError
from tcformer.files import sha256_of_file, sha256_of_json
from tcformer.tasks import PRETRAINING, TaskSpec

LOCAL = "-local"  # ends the name of a training by the plain PyTorch engine


@dataclass(frozen=True)
class TrainingPlan:
    """What determines a training's result.

    Attributes:
        task: the task with its options.
        training: the parameters of the loop.
        data: the prepared dataset.
        initial: weights file that the network or its backbone starts from; None for random weights.
        instruction_sets: with which the workers compute.
    """

    task: TaskSpec
    training: Training
    data: Prepared
    initial: Path | None
    instruction_sets: InstructionSets = "native"

    def __post_init__(self) -> None:
        if self.initial and not self.initial.is_file():
            raise UserError(
                f"there is no weights file {self.initial} to start {self.stage} from: run the stage that makes it, or "
                f"give the path of one as {training_section(self.task.name)}.initial"
            )

    @property
    def stage(self) -> str:
        """DVC's name of the stage: "pretrain", "finetune@face"."""
        return "pretrain" if self.task.name == PRETRAINING else f"finetune@{self.task.name}"

    @property
    def file_name(self) -> str:
        """The stage as part of a file name: "finetune-face"."""
        return self.stage.replace("@", "-")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """All that determines the result: parameters, data, initial weights and code, but not where it runs."""
        options = json.loads(spec_to_json(self.task))
        pinned = {} if self.instruction_sets == "native" else {"instruction_sets": self.instruction_sets}
        return {
            "stage": self.stage,
            "network": options.pop("network"),
            "task": options,
            "training": self.training.model_dump(mode="json"),
            "data": self.data.sha256,
            "initial": sha256_of_file(self.initial) if self.initial else None,
            "code": code_version(self.stage),
            "torch": versions()["torch"],
            **pinned,
        }

    @cached_property
    def key(self) -> str:
        """Identity of the result, from its inputs. It names the training's folder and its run in MLflow.

        Trainings with the plain PyTorch engine have keys of their own, so that a debugger neither resumes the training
        of Ray's workers nor takes its result.
        """
        return f"{self.file_name}-{sha256_of_json(self.inputs)[:16]}{LOCAL if runs_locally() else ''}"


def plan_of(task: str, params: Params) -> TrainingPlan:
    """The training of a task as params.yaml says.

    Raises:
        UserError: its dataset or its initial weights do not exist yet.
    """
    layout, section = Layout(params.recipe), params.active.training_of(task)
    pretrained = None if task == PRETRAINING else layout.weights(PRETRAINING)
    initial = Path(section.initial) if section.initial else pretrained
    spec, data = params.active.spec_of(task), Prepared.open(layout.data(task))
    return TrainingPlan(spec, section.training, data, initial, params.instruction_sets)


def checkpoints_root(params: Params) -> str:
    """The folder or address below which each training has a folder."""
    return (params.cluster.storage or str(Layout(params.recipe).checkpoints)).rstrip("/")

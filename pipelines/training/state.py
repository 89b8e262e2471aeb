"""The optimiser's state in a form that does not depend on the engine, the ZeRO stage or the number of workers.

A checkpoint contains tensors as safetensors and everything else as JSON: opening one executes nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

MOMENTS, POSITION = "optimizer.safetensors", "optimizer.json"
AVERAGES = ("exp_avg", "exp_avg_sq")  # PyTorch's names of AdamW's moving averages
STEP = "step"  # and of the number of updates that they contain


@dataclass(frozen=True)
class OptimizerState:
    """The state of AdamW and of the learning-rate schedule.

    Attributes:
        moments: "exp_avg.<parameter>" and "exp_avg_sq.<parameter>" -> float32 in the parameter's shape. Those of a
            parameter that has never had a gradient may be absent.
        steps: parameter -> number of updates that its moments contain.
        schedule: the scheduler's `state_dict`.
    """

    moments: dict[str, Tensor]
    steps: dict[str, int]
    schedule: dict[str, Any]

    @property
    def position(self) -> bytes:
        """Content of the file `POSITION`: everything but the moments, which are in `MOMENTS`."""
        return json.dumps({"steps": self.steps, "schedule": self.schedule}).encode()

    @classmethod
    def load(cls, folder: Path) -> "OptimizerState":
        """Read the two files of a checkpoint; the tensors are on the CPU."""
        return cls(load_file(folder / MOMENTS), **json.loads((folder / POSITION).read_text()))


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that the optimiser updates."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def state_of(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, model: nn.Module
) -> OptimizerState:
    """The state of an optimiser over the model's own parameters."""
    found = [(name, state) for name, parameter in trainable(model) if (state := optimizer.state.get(parameter))]
    moments = {f"{key}.{name}": state[key] for name, state in found for key in AVERAGES}
    return OptimizerState(moments, {name: int(state[STEP]) for name, state in found}, scheduler.state_dict())


def set_moments(optimizer: torch.optim.Optimizer, model: nn.Module, saved: OptimizerState) -> None:
    """Give an optimiser over the model's own parameters the saved moments."""
    for name, parameter in trainable(model):
        if name in saved.steps:
            optimizer.state[parameter] = {
                STEP: torch.tensor(float(saved.steps[name]), device=parameter.device),
                **{key: saved.moments[f"{key}.{name}"].to(parameter.device) for key in AVERAGES},
            }


def set_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, schedule: dict[str, Any]) -> None:
    """Continue a learning-rate schedule, in the optimiser's parameter groups too."""
    scheduler.load_state_dict(dict(schedule))
    for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that contains NaN or infinity; None if there is none."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return name
    return None

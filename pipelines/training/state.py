"""The optimiser's state in a form that does not depend on the engine, the ZeRO stage or the number of workers.

A checkpoint contains tensors as safetensors and everything else as JSON: opening one executes nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MOMENTS, SCHEDULE = "optimizer.safetensors", "schedule.json"
STEP, AVERAGES = "step", ("exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter, under PyTorch's names


@dataclass(frozen=True)
class OptimizerState:
    """The state of AdamW and of the learning-rate schedule.

    Attributes:
        moments: parameter -> AdamW's "step", "exp_avg" and "exp_avg_sq" in float32, the last two in the parameter's
            shape. A parameter that has never had a gradient may be absent.
        schedule: the scheduler's `state_dict`.
    """

    moments: dict[str, dict[str, Tensor]]
    schedule: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, named "exp_avg.<parameter>" and so on."""
        return {f"{key}.{name}": value for name, found in self.moments.items() for key, value in found.items()}

    def save(self, folder: Path) -> None:
        """Write the state to files in `folder`."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors().items()}
        save_file(tensors, folder / MOMENTS)
        (folder / SCHEDULE).write_text(json.dumps(self.schedule))

    @classmethod
    def load(cls, folder: Path) -> "OptimizerState":
        """Read what `save` wrote; the tensors are on the CPU."""
        moments: dict[str, dict[str, Tensor]] = {}
        for tensor_name, value in load_file(folder / MOMENTS).items():
            key, _, name = tensor_name.partition(".")
            moments.setdefault(name, {})[key] = value
        return cls(moments, json.loads((folder / SCHEDULE).read_text()))


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that the optimiser updates."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def moments_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The moments of an optimiser over the model's own parameters."""
    return {
        name: dict(optimizer.state[parameter]) for name, parameter in trainable(model) if parameter in optimizer.state
    }


def set_moments(optimizer: torch.optim.Optimizer, model: nn.Module, moments: dict[str, dict[str, Tensor]]) -> None:
    """Give an optimiser over the model's own parameters these moments."""
    for name, parameter in trainable(model):
        if name in moments:
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments[name].items()}


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

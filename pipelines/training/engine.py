"""What the loop asks of whatever updates the weights, and the plain PyTorch answer to it.

`pipelines/adapters/deepspeed.py` is the other answer: the one that Ray's workers use.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipelines.params import Training
from pipelines.training.optimizer import build_optimizer
from pipelines.training.sampling import BatchPlan
from pipelines.training.schedule import scheduler
from pipelines.training.state import OptimizerState, set_moments, set_schedule, state_of
from tcformer.models import Network


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is made from, besides the model.

    Attributes:
        training: optimiser, clipping, precision.
        batch: how the global batch is divided.
        steps: optimiser steps of the training.
        steps_per_epoch: optimiser steps of an epoch.
        device: where the model is.
    """

    training: Training
    batch: BatchPlan
    steps: int
    steps_per_epoch: float
    device: torch.device


class Engine(Protocol):
    """A model and its optimiser: call it, then `backward` and `step` once a micro batch."""

    @property
    def module(self) -> Network:
        """The bare model that is trained."""
        ...

    @property
    def whole(self) -> Network:
        """The module; or, where the workers divide its weights, a copy with all of them as `gather` found them."""
        ...

    def gather(self) -> None:
        """Bring the weights and buffers of `whole` up to date. Every worker calls it."""
        ...

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update; with layer-wise decay that of neck and head, the highest."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """The model's output, with a graph for `backward`."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro batch; a step's gradients are the mean over its micro batches and workers."""
        ...

    def step(self) -> bool:
        """Update the weights after the last micro batch of a step; after the others do nothing.

        If the loss or the gradients of a worker are not finite, no worker changes weights or moments in this step, but
        the learning-rate schedule goes on.

        Returns:
            False if the step was skipped for that reason; the same on every worker.
        """
        ...

    def optimizer_state(self) -> OptimizerState:
        """The whole state of the optimiser. Every worker calls it; only rank 0 needs to get the moments."""
        ...

    def load(self, weights: dict[str, Tensor], optimizer: OptimizerState) -> None:
        """Continue from weights (the model's `state_dict`) and the state of any engine on any number of workers."""
        ...


class StartEngine(Protocol):
    """How a training gets its engine."""

    def __call__(self, model: Network, options: EngineOptions) -> Engine:
        """Wrap a model that is on its device already; torch.distributed is initialised."""
        ...


def gradient_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of all gradients, computed as DeepSpeed does, so that both engines give the same bits."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.stack([gradient.norm(2) for gradient in gradients]).pow(2).sum().pow(0.5)


def nan_unless_finite(loss: Tensor) -> Tensor:
    """`loss`, and NaN in place of infinity, with gradients that are NaN if it is not finite.

    The gradients of all workers are added up, so each of them notices that the loss of one is not finite.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


class TorchEngine:
    """One process, plain PyTorch: to step through a training in a debugger. Updates are those of DeepSpeed's engine.

    Args:
        model: on its device.
        options: see `EngineOptions`; the batch must be planned for one worker.
    """

    def __init__(self, model: Network, options: EngineOptions) -> None:
        self.module = model
        self._batch, self._clip = options.batch, options.training.optimizer.clip_norm
        self._optimizer = build_optimizer(model, options.training.optimizer)
        self._scheduler = scheduler(self._optimizer, options.training.optimizer, options.steps, options.steps_per_epoch)
        self._waiting = 0  # micro batches since the last update

    @property
    def whole(self) -> Network:
        return self.module

    def gather(self) -> None:
        """The module is whole."""

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def __call__(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(images)
        return output

    def backward(self, loss: Tensor) -> None:
        (nan_unless_finite(loss) / self._batch.accumulation).backward()
        self._waiting += 1

    def step(self) -> bool:
        if self._waiting < self._batch.accumulation:
            return True
        norm = gradient_norm(self.module)
        finite = bool(norm.isfinite())
        if finite:
            if self._clip is not None:
                factor = (self._clip / (norm + 1e-6)).clamp(max=1.0)
                for parameter in self.module.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._scheduler.step()
        self._waiting = 0
        return finite

    def optimizer_state(self) -> OptimizerState:
        return state_of(self._optimizer, self._scheduler, self.module)

    def load(self, weights: dict[str, Tensor], optimizer: OptimizerState) -> None:
        self.module.load_state_dict(weights)
        set_moments(self._optimizer, self.module, optimizer)
        set_schedule(self._scheduler, optimizer.schedule)

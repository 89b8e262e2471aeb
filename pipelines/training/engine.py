"""What the loop asks of whatever updates the weights, and the plain PyTorch answer to it.

`pipelines/adapters/deepspeed.py` is the other answer: the one that Ray's workers use.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipelines.params import Training
from pipelines.training.optimizer import build_optimizer
from pipelines.training.sampling import BatchPlan
from pipelines.training.schedule import scheduler
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
        """The bare model."""
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

    def step(self) -> None:
        """Update the weights after the last micro batch of a step; after the others do nothing."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's part of a checkpoint below `folder`. Every worker calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        ...


class StartEngine(Protocol):
    """How a training gets its engine."""

    def __call__(self, model: Network, options: EngineOptions) -> Engine:
        """Wrap a model that is on its device already; torch.distributed is initialised."""
        ...


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
    def learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def __call__(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(images)
        return output

    def backward(self, loss: Tensor) -> None:
        (loss / self._batch.accumulation).backward()
        self._waiting += 1

    def step(self) -> None:
        if self._waiting < self._batch.accumulation:
            return
        if self._clip is not None:
            # As DeepSpeed clips, so that both engines give the same bits.
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = torch.stack([gradient.norm(2) for gradient in gradients]).pow(2).sum().pow(0.5)
            factor = (self._clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._scheduler.step()
        self._waiting = 0

    def save(self, folder: Path) -> None:
        state = {
            "model": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }
        torch.save(state, folder / "state.pt")

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
        self.module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])

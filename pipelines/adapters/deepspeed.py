"""The DeepSpeed adapter: optimiser, schedule and engine derived from the parameters in one place."""

import logging
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.params import Optimizer, Training
from pipelines.training.loading import BatchPlan
from tcformer.models import Network


def deepspeed_config(training: Training, plan: BatchPlan) -> dict[str, Any]:
    """DeepSpeed's JSON. Precision is not in it: weights stay float32, the loop runs under autocast."""
    return {
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": training.optimizer.clip_norm or 0.0,
        "zero_optimization": {"stage": training.zero_stage},
        # The optimiser is torch's own AdamW: DeepSpeed's would compile an extension at the first start.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 60,
    }


def learning_rate(step: int, optimizer: Optimizer, steps: int, steps_per_epoch: float) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``: linear warm-up, then the schedule."""
    if optimizer.schedule == "cosine":
        progress = min(step / max(steps, 1), 1.0)
        rate = optimizer.final_lr + (optimizer.lr - optimizer.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    elif optimizer.schedule == "step":
        rate = optimizer.lr * 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in optimizer.milestones)
    else:
        rate = optimizer.lr
    if step < optimizer.warmup_steps:
        rate = optimizer.warmup_lr + (rate - optimizer.warmup_lr) * step / optimizer.warmup_steps
    return rate


def parameter_groups(model: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Trainable parameters with their weight decay; with ``decay_norms_and_biases: false`` only matrices decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim > 1
            (decayed if matrix or optimizer.decay_norms_and_biases else free).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": optimizer.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@dataclass
class Engine:
    """A model under DeepSpeed: call it, then ``backward`` and ``step`` once a micro batch."""

    wrapped: Any
    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        return self.wrapped(images)

    @property
    def module(self) -> Network:
        """The bare model."""
        return self.wrapped.module

    def backward(self, loss: Tensor) -> None:
        """Gradients of a micro batch; DeepSpeed divides by the accumulation and averages over the workers."""
        self.wrapped.backward(loss)

    def step(self) -> None:
        """Update the weights after the last micro batch of a step; a no-op after the others."""
        self.wrapped.step()

    def save(self, folder: Path) -> None:
        """Write this rank's part of the checkpoint below ``folder``; every rank calls it."""
        self.wrapped.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load(self, folder: Path) -> None:
        """Read a checkpoint written by ``save``. The files are pickles: their digests were checked before."""
        path, _ = self.wrapped.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise RuntimeError(f"DeepSpeed could not load the checkpoint in {folder}")


def start_engine(
    model: Network, training: Training, plan: BatchPlan, steps: int, steps_per_epoch: float, device: torch.device
) -> Engine:
    """Wrap ``model``. torch.distributed is initialised already (by Ray)."""
    # Both are read at import.
    os.environ["DS_ACCELERATOR"] = "cuda" if device.type == "cuda" else "cpu"
    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiled at first use otherwise
    deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    chosen = training.optimizer
    optimizer = torch.optim.AdamW(parameter_groups(model, chosen), lr=chosen.lr, betas=(0.9, 0.999), fused=True)

    def schedule(wrapped: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(
            wrapped, lambda step: learning_rate(step, chosen, steps, steps_per_epoch) / chosen.lr
        )

    wrapped, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=schedule, config=deepspeed_config(training, plan)
    )
    return Engine(wrapped, device)

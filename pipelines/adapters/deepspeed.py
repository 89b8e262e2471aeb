"""The DeepSpeed adapter: the engine of Ray's workers. DeepSpeed's JSON follows from the parameters in one place."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.params import Training
from pipelines.training.device import compute_dtype
from pipelines.training.engine import EngineOptions
from pipelines.training.optimizer import build_optimizer
from pipelines.training.sampling import BatchPlan
from pipelines.training.schedule import scheduler
from tcformer.models import Network


def deepspeed_config(training: Training, batch: BatchPlan, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's JSON.

    Args:
        training: optimiser and ZeRO stage.
        batch: how the global batch is divided.
        dtype: in which the forward pass computes under autocast; weights, gradients and their sums stay float32.
    """
    # DeepSpeed switches an autocast around its engine off unless it has a section of its own for it. With no module
    # named as safe, it does not communicate gradients in bfloat16.
    bf16 = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {
        "torch_autocast": bf16 if dtype == torch.bfloat16 else {"enabled": False},
        "train_batch_size": batch.global_batch,
        "train_micro_batch_size_per_gpu": batch.micro_batch,
        "gradient_accumulation_steps": batch.accumulation,
        "gradient_clipping": training.optimizer.clip_norm or 0.0,
        "zero_optimization": {"stage": training.zero_stage},
        # The optimiser is torch's own AdamW: DeepSpeed's would compile an extension at the first start.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 60,
    }


class DeepSpeedEngine:
    """A model under DeepSpeed; see `pipelines.training.engine.Engine`."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    @property
    def module(self) -> Network:
        module: Network = self._wrapped.module
        return module

    @property
    def learning_rate(self) -> float:
        return float(self._wrapped.optimizer.param_groups[0]["lr"])

    def __call__(self, images: Tensor) -> Tensor:
        output: Tensor = self._wrapped(images)
        return output

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed divides by the accumulation and averages over the workers."""
        self._wrapped.backward(loss)

    def step(self) -> None:
        self._wrapped.step()

    def save(self, folder: Path) -> None:
        self._wrapped.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load(self, folder: Path) -> None:
        """The files are pickles: their digests were checked before."""
        path, _ = self._wrapped.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise RuntimeError(f"DeepSpeed could not load the checkpoint in {folder}")


def start_deepspeed(model: Network, options: EngineOptions) -> DeepSpeedEngine:
    """Wrap `model`; see `pipelines.training.engine.StartEngine`. Ray has initialised torch.distributed already."""
    on_gpu = options.device.type == "cuda"
    # Both are read at import.
    os.environ["DS_ACCELERATOR"] = "cuda" if on_gpu else "cpu"
    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiled at first use otherwise
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", verbose=False)
    chosen = options.training.optimizer
    wrapped, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimizer(model, chosen),
        lr_scheduler=lambda optimizer: scheduler(optimizer, chosen, options.steps, options.steps_per_epoch),
        config=deepspeed_config(options.training, options.batch, compute_dtype(options.training, options.device)),
    )
    return DeepSpeedEngine(wrapped)

"""The device of a worker: precision, determinism and random state on it."""

import contextlib
import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import nn

from pipelines.params import Training
from tcformer.tasks import Batch


def this_device() -> torch.device:
    """The GPU that this worker was given, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def be_deterministic(seed: int, device: torch.device) -> None:
    """Seed PyTorch, the same on every worker so that all start from the same weights, and forbid chance in kernels."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    else:
        # One thread a core that Ray gave this worker: more would fight with the other workers.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make the random state a function of (seed, step, rank): a checkpoint has none to save."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
    np.random.seed(int(words[1]) & 0xFFFFFFFF)
    random.seed(int(words[1]))


def compute_dtype(training: Training, device: torch.device) -> torch.dtype:
    """The precision of matrix products and convolutions that `training.precision` asks for; weights stay float32."""
    bf16 = training.precision == "bf16" or (training.precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if bf16 else torch.float32


def autocast(training: Training, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass and its loss in `compute_dtype`."""
    dtype = compute_dtype(training, device)
    return torch.autocast(device.type, dtype) if dtype == torch.bfloat16 else contextlib.nullcontext()


@contextmanager
def observed_dtypes(model: nn.Module) -> Iterator[set[torch.dtype]]:
    """The types in which the linear and convolution layers of `model` really compute while the body runs."""
    seen: set[torch.dtype] = set()

    def observe(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        seen.add(output.dtype)

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(observe) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

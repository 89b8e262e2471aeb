"""Memory of a training process: weights, gradients and optimiser by ZeRO stage, and activations."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pipelines.params import Training
from tcformer import create_model
from tcformer.models import Network
from tcformer.models.kernel_choice import use_kernels
from tcformer.models.options import TASKS as NETWORKS
from tcformer.tasks import TaskSpec

FLOAT = 4  # bytes; weights, gradients and moments are float32 whatever the precision of the forward pass
BUCKET = 500_000_000  # numbers in DeepSpeed's default buffer for gradients (zero_optimization.reduce_bucket_size)


@dataclass(frozen=True)
class StateMemory:
    """Bytes of a training process that do not depend on the batch.

    Attributes:
        parameters: weights with which the forward pass computes; with ZeRO 3 this process's part of them, and a copy of
            all that is validated and saved.
        gradients: of all weights, or with ZeRO 2 and 3 of this process's part.
        optimizer: AdamW's two moments, with ZeRO also the float32 copy of the weights that it updates.
        average: the moving average of the weights.
        buffers: in which DeepSpeed collects gradients to send.
    """

    parameters: float
    gradients: float
    optimizer: float
    average: float
    buffers: float

    @property
    def total(self) -> float:
        """The sum of all."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.buffers


def state_memory(weights: int, workers: int, zero_stage: int, has_average: bool = False) -> StateMemory:
    """Memory of weights, gradients and optimiser under DeepSpeed's ZeRO (Rajbhandari et al., 2020, section 5).

    Without ZeRO a weight takes 16 bytes: itself, its gradient and two moments. ZeRO 1 divides the moments among the
    workers, ZeRO 2 also the gradients, ZeRO 3 also the weights of the forward pass.

    Args:
        weights: number of trainable numbers.
        workers: training processes.
        zero_stage: 0 to 3.
        has_average: whether the training averages its weights.
    """
    whole, part = float(FLOAT * weights), FLOAT * weights / workers
    if zero_stage == 0:
        buffers = min(whole, FLOAT * BUCKET) if workers > 1 else 0.0
        return StateMemory(whole, whole, 2 * whole, whole * has_average, buffers)
    return StateMemory(
        parameters=part + whole if zero_stage == 3 else whole,
        gradients=part if zero_stage >= 2 else whole,
        optimizer=3 * part,
        average=whole * has_average,
        buffers=float(FLOAT * BUCKET),
    )


def network_of(spec: TaskSpec, device: torch.device | str = "meta") -> Network:
    """The network of a task, built without data.

    The head for meshes does not start from the mean body of a training set, which does not change its size. The head
    for the user's own keypoints, whose number is in the data, has 17.

    Args:
        spec: the task with its options.
        device: of the weights; "meta": they take no memory and have no values.
    """
    with torch.device(device):
        if spec.name not in NETWORKS:
            return spec.build(Path()).build_model()
        of_head = ("num_classes", "keypoints", "neck")
        named = {name: getattr(spec.options, name) for name in of_head if hasattr(spec.options, name)}
        options = {**named, **spec.network.model_options}
        if "pretrained" in options:
            options["pretrained"] = False  # nothing is downloaded
        return create_model(spec.network.backbone, spec.name, **options)


def input_size(spec: TaskSpec) -> tuple[int, int]:
    """Height and width of the network's input, pixels."""
    size = spec.options.input_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def samples_per_group(spec: TaskSpec) -> int:
    """How many samples belong together in a micro batch: 2 with mixup or CutMix, see `tcformer.tasks.Dataset`."""
    augmentation = spec.options.augmentation
    return 2 if any(getattr(augmentation, name, 0) > 0 for name in ("mixup", "cutmix")) else 1


def activation_bytes(model: nn.Module, images: int, size: tuple[int, int], bf16: bool) -> int:
    """Bytes that a forward pass leaves in memory for the backward pass.

    The network runs on fake tensors, which have shapes but no values: nothing is computed, and any device is as good.
    Temporary memory of single operations is not counted, nor, with `activation_checkpointing`, the activations of the
    block that the backward pass recomputes.

    Args:
        model: from `network_of`.
        images: in a micro batch.
        size: (H, W) of the images.
        bf16: whether the forward pass computes in bfloat16 under autocast.
    """
    kept = _KeptStorages()
    # The copies of the weights in bfloat16 that autocast keeps are among what stays.
    with FakeTensorMode(allow_non_fake_inputs=True), use_kernels("torch"):
        state = {
            name: torch.empty(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)
            for name, value in (*model.named_parameters(), *model.named_buffers())
        }
        batch = torch.empty(images, 3, *size)
        with kept, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = functional_call(model, state, batch)
            gc.collect()  # what only a cycle of references keeps
            for value in state.values():  # of which operations have made views
                kept.storages.pop(value.untyped_storage(), None)
            total = batch.nbytes + sum(storage.nbytes() for storage in kept.storages)
        del output
    return total


class _KeptStorages(TorchDispatchMode):
    """Notes the memory of all tensors that operations make, as long as something refers to it."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.storages[leaf.untyped_storage()] = True
        return result


def checkpoint_bytes(model: nn.Module, training: Training) -> int:
    """Bytes of a checkpoint: weights and buffers, two moments of each weight, their average, the best weights."""
    weights = sum(value.nbytes for value in model.state_dict().values())
    moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return weights * (1 + (training.ema_decay is not None) + (training.keep == "best")) + moments

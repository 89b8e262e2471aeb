"""The DeepSpeed adapter: the engine of Ray's workers. DeepSpeed's JSON follows from the parameters in one place."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from pipelines.params import Training
from pipelines.training.device import compute_dtype
from pipelines.training.engine import EngineOptions, gradient_norm, nan_unless_finite
from pipelines.training.optimizer import build_optimizer
from pipelines.training.sampling import BatchPlan
from pipelines.training.schedule import scheduler
from pipelines.training.state import AVERAGES, STEP, OptimizerState, set_moments, set_schedule, state_of, trainable
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
    """A model under DeepSpeed; see `pipelines.training.engine.Engine`.

    ZeRO 1 and 2 divide the flat tensor of each parameter group, its moments included, evenly among the workers; ZeRO 3
    also divides the weights, each parameter by itself, which the module collects for its forward and backward passes.

    Args:
        wrapped: DeepSpeed's engine.
        copy: with ZeRO 3 a plain copy of the module, for `whole`.
    """

    def __init__(self, wrapped: Any, copy: Network | None = None) -> None:
        self._wrapped, self._copy = wrapped, copy
        self._is_partitioned = wrapped.zero_optimization()

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
        self._wrapped.backward(nan_unless_finite(loss))

    def step(self) -> bool:
        wrapped = self._wrapped
        if not wrapped.is_gradient_accumulation_boundary():
            wrapped.step()
            return True
        if self._is_partitioned:
            # DeepSpeed computes the norm of all workers' partitions, and itself skips a step where it is not finite.
            wrapped.step()
            finite = not wrapped.optimizer.overflow
        else:
            finite = bool(gradient_norm(self.module).isfinite())  # each worker has the same gradients already
            if not finite:
                wrapped.set_gradient_accumulation_boundary(False)  # `step` then counts the micro batch and no more
            wrapped.step()
            wrapped.set_gradient_accumulation_boundary(None)
        if not finite:
            wrapped.zero_grad()
            wrapped.lr_scheduler.step()
        return finite

    @property
    def whole(self) -> Network:
        return self._copy or self.module

    def gather(self) -> None:
        if self._copy is not None:
            with self._gathered():
                self._copy.load_state_dict(self.module.state_dict())

    @contextmanager
    def _gathered(self, changed_by: int | None = None) -> Iterator[None]:
        """Have all weights in the module in the body, with ZeRO 3; what the worker `changed_by` writes there stays."""
        if self._copy is None:
            yield
            return
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(list(self.module.parameters()), modifier_rank=changed_by):
            yield

    def optimizer_state(self) -> OptimizerState:
        optimizer, schedule = self._wrapped.optimizer, self._wrapped.lr_scheduler
        if not self._is_partitioned:
            return state_of(optimizer, schedule, self.module)
        from deepspeed.utils import safe_get_full_optimizer_state

        is_first = torch.distributed.get_rank() == 0
        moments: dict[str, Tensor] = {}
        for name, parameter in trainable(self.module):
            for key in AVERAGES:
                value = safe_get_full_optimizer_state(parameter, key)  # adds up the workers' parts, so all must call it
                if is_first:
                    moments[f"{key}.{name}"] = value.cpu()
        steps = {
            parameter: int(optimizer.state[part][STEP]) for group, part in _groups(optimizer) for parameter in group
        }
        numbers = {name: steps[parameter] for name, parameter in trainable(self.module)}
        return OptimizerState(moments, numbers, schedule.state_dict())

    def load(self, weights: dict[str, Tensor], optimizer: OptimizerState) -> None:
        with self._gathered(changed_by=0):
            self.module.load_state_dict(weights)
        set_schedule(self._wrapped.lr_scheduler, optimizer.schedule)
        if not self._is_partitioned:
            set_moments(self._wrapped.optimizer, self.module, optimizer)
            return
        set_weights, set_moment = _setters(divides_weights=self._copy is not None)
        names = {parameter: name for name, parameter in trainable(self.module)}
        for parameter, name in names.items():
            set_weights(parameter, weights[name].to(parameter.device))
            for key in AVERAGES:
                if name in optimizer.steps:
                    value = optimizer.moments[f"{key}.{name}"].to(parameter.device)
                    set_moment(parameter, value, key)
        # A partition has one number of steps for all of its parameters.
        for group, partition in _groups(self._wrapped.optimizer):
            steps = max(optimizer.steps.get(names[parameter], 0) for parameter in group)
            self._wrapped.optimizer.state[partition][STEP].fill_(steps)


def start_deepspeed(model: Network, options: EngineOptions) -> DeepSpeedEngine:
    """Wrap `model`; see `pipelines.training.engine.StartEngine`. Ray has initialised torch.distributed already."""
    on_gpu = options.device.type == "cuda"
    # Both are read at import.
    os.environ["DS_ACCELERATOR"] = "cuda" if on_gpu else "cpu"
    warnings.filterwarnings("ignore", category=FutureWarning)
    with _without("mlflow"):  # DeepSpeed's autotuner would import it: 1.5 s of each worker's start
        import deepspeed
        import deepspeed.ops
        from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiled at first use otherwise
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", verbose=False)
    chosen = options.training.optimizer
    divides_weights = options.training.zero_stage == 3
    copy = deepcopy(model).requires_grad_(False) if divides_weights else None
    wrapped, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimizer(model, chosen),
        lr_scheduler=lambda optimizer: scheduler(optimizer, chosen, options.steps, options.steps_per_epoch),
        config=deepspeed_config(options.training, options.batch, compute_dtype(options.training, options.device)),
    )
    if wrapped.zero_optimization():
        _create_moments(wrapped.optimizer)
    return DeepSpeedEngine(wrapped, copy)


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Have imports of a module fail in the body, unless it is loaded already."""
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if sys.modules[module] is None:
            del sys.modules[module]


def _create_moments(optimizer: Any) -> None:
    """Give AdamW the state that it would make at its first update, of one parameter group after the other.

    DeepSpeed looks up the state of all groups after the first group's update, so that functions such as
    `safe_get_full_optimizer_state` would not find that of the other groups.
    """
    for _, partition in _groups(optimizer):
        averages = {key: torch.zeros_like(partition) for key in AVERAGES}
        optimizer.state[partition] = {STEP: torch.zeros((), device=partition.device), **averages}
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._lazy_init_hp_params_optimizer_state()


def _setters(divides_weights: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """DeepSpeed's functions that set the float32 weights of a parameter, and a moment of the optimiser."""
    from deepspeed import utils

    if not divides_weights:
        return utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state

    def own(parameter: Any, value: Tensor) -> Tensor:
        """This worker's part. DeepSpeed's functions for whole values fail where the last part is filled up."""
        size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()
        filled = torch.nn.functional.pad(
            value.flatten(), (0, size * torch.distributed.get_world_size() - value.numel())
        )
        return filled[size * rank : size * (rank + 1)]

    return (
        lambda parameter, value: utils.safe_set_local_fp32_param(parameter, own(parameter, value)),
        lambda parameter, value, key: utils.safe_set_local_optimizer_state(parameter, own(parameter, value), key),
    )


def _groups(optimizer: Any) -> list[tuple[list[torch.nn.Parameter], Tensor]]:
    """The parameters of each group, and this worker's partition of them, by which the optimiser keeps its state."""
    if hasattr(optimizer, "bit16_groups"):
        return list(zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True))
    return list(zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True))

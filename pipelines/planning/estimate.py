"""Put together what the trainings of a recipe need on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from pipelines.layout import Layout
from pipelines.params import Params, Training
from pipelines.planning.datasets import DatasetSize, dataset_size
from pipelines.planning.failures import Reliability, goodput, young_interval
from pipelines.planning.memory import (
    FLOAT,
    StateMemory,
    activation_bytes,
    checkpoint_bytes,
    input_size,
    network_of,
    samples_per_group,
    state_memory,
)
from pipelines.planning.speed import StepTime, divided, measure, most_useful_workers
from pipelines.training.sampling import BatchPlan, steps_in
from tcformer.models.accounting import count_flops, count_parameters
from tcformer.tasks import PRETRAINING, TaskSpec

GPUS = (8, 16, 32, 64, 128, 256, 512)  # for which failures are simulated

#: Where a speed comes from: a measured run, the user, or the multiplications of a network whose speed is known.
Origin = Literal["measured", "given", "predicted", "not known"]
_NOT_KNOWN: Origin = "not known"


@dataclass(frozen=True)
class PlannedCluster:
    """Where the trainings shall run.

    Attributes:
        workers: training processes, one a GPU, or on CPUs.
        nodes: machines.
        gpus: whether the workers have GPUs.
        memory: bytes of each worker; None if this is not known.
        described: for people.
    """

    workers: int
    nodes: int
    gpus: bool
    memory: float | None
    described: str


@dataclass(frozen=True)
class Assumptions:
    """What the user knows of a cluster, or what is assumed.

    Attributes:
        reliability: how often GPUs fail, and how long a restart takes.
        store: bytes a second in which a checkpoint is written.
        network: bytes a second between two workers.
        fixed: seconds of a micro batch for launching operations, where the speed is given and not measured.
    """

    reliability: Reliability
    store: float
    network: float
    fixed: float


@dataclass(frozen=True)
class StageEstimate:
    """What a training needs on the cluster.

    Attributes:
        stage: DVC's name.
        network: its name.
        size: (H, W) of its input, pixels.
        parameters: of the network.
        data: size of the training set.
        training: the parameters of the loop.
        group: samples that belong together.
        steps: optimiser steps.
        batch: how the global batch is divided.
        state: memory of weights, gradients and optimiser.
        activations: predicted bytes of a micro batch.
        times: of micro batches; None if no speed is known.
        times_from: where they come from.
        checkpoint: bytes of a checkpoint.
        assumptions: about the cluster.
        nodes: machines that read the dataset.
    """

    stage: str
    network: str
    size: tuple[int, int]
    parameters: int
    data: DatasetSize
    training: Training
    group: int
    steps: int
    batch: BatchPlan
    state: StateMemory
    activations: int
    times: StepTime | None
    times_from: Origin
    checkpoint: int
    assumptions: Assumptions
    nodes: int

    @property
    def memory(self) -> float:
        """Bytes of a worker."""
        return self.state.total + self.activations

    @property
    def gradients(self) -> int:
        """Bytes that the workers average in a step."""
        return FLOAT * self.parameters

    @property
    def step_seconds(self) -> float | None:
        """Seconds of an optimiser step; None if no speed is known."""
        if self.times is None:
            return None
        return self.times.step(self.batch, self.gradients, self.assumptions.network)

    @property
    def images_per_second(self) -> float | None:
        """Of all workers."""
        return None if self.step_seconds is None else self.batch.global_batch / self.step_seconds

    @property
    def checkpoint_seconds(self) -> float:
        """In which a checkpoint is written.

        The training does not wait for it (`pipelines.training.writer`). Here it does, so that the goodput is a lower
        bound, and the hours an upper one.
        """
        return self.checkpoint / self.assumptions.store

    @property
    def hours(self) -> float | None:
        """From the first step to the last, with checkpoints as the recipe takes them and with failures."""
        if self.step_seconds is None:
            return None
        interval = self.training.checkpoint_every * self.step_seconds
        share = goodput(interval, *self._losses(self.batch.workers)) if self.steps else 1.0
        return self.steps * self.step_seconds / share / 3600 if share else inf

    @property
    def gpu_hours(self) -> float | None:
        """Of all workers."""
        return None if self.hours is None else self.hours * self.batch.workers

    @property
    def young_steps(self) -> int | None:
        """Steps between checkpoints by Young's formula; None if no speed is known or nothing fails."""
        seconds = self.young_seconds(self.batch.workers)
        return None if self.step_seconds is None or seconds == inf else max(1, round(seconds / self.step_seconds))

    @property
    def most_useful_workers(self) -> int:
        """See `pipelines.planning.speed.most_useful_workers`."""
        network = self.assumptions.network
        return most_useful_workers(self.times, self.training, self.group, self.gradients, network)

    @property
    def read_bytes(self) -> int | None:
        """What all machines together read of the dataset from the store: each of them all of it, once."""
        return None if self.data.stored is None else self.data.stored * self.nodes

    def young_seconds(self, gpus: int) -> float:
        """Seconds between checkpoints by Young's formula."""
        return young_interval(self.checkpoint_seconds, self.assumptions.reliability.between_failures(gpus))

    def goodput(self, gpus: int) -> float:
        """With checkpoints by Young's formula."""
        return goodput(self.young_seconds(gpus), *self._losses(gpus))

    def _losses(self, gpus: int) -> tuple[float, float, float]:
        reliability = self.assumptions.reliability
        return self.checkpoint_seconds, reliability.between_failures(gpus), reliability.restart


def estimate(
    params: Params,
    cluster: PlannedCluster,
    assumptions: Assumptions,
    *,
    speeds: Mapping[str, float] | None = None,
    samples: Mapping[str, int] | None = None,
    measured: bool = False,
) -> list[StageEstimate]:
    """Estimate all trainings of the active recipe.

    Args:
        params: the recipe.
        cluster: where it shall run.
        assumptions: about the cluster.
        speeds: images a second of one worker, by task. The others follow from them by the multiplications of their
            networks.
        samples: of training sets, by task, where they are known better.
        measured: time the networks on this machine's device instead.

    Raises:
        UserError: nothing is known of a dataset.
    """
    specs = {task: params.active.spec_of(task) for task in params.active.tasks}
    known: dict[str, tuple[StepTime, Origin]] = {}
    for task, spec in specs.items():
        training = params.active.training_of(task).training
        if measured:
            known[task] = measure(spec, training), "measured"
        elif speeds and task in speeds:
            batch = divided(training, cluster.workers, samples_per_group(spec))
            known[task] = StepTime.of_speed(speeds[task], batch.micro_batch, assumptions.fixed), "given"
    if known:
        _complete(known, specs)
    return [_stage(task, spec, params, cluster, assumptions, known, samples or {}) for task, spec in specs.items()]


def _complete(known: dict[str, tuple[StepTime, Origin]], specs: Mapping[str, TaskSpec]) -> None:
    """Add the times of the tasks without one: that of an image in the ratio of the multiplications."""
    like, (times, _) = next(iter(known.items()))
    missing = {task: spec for task, spec in specs.items() if task not in known}
    if missing:
        own = count_flops(network_of(specs[like]), input_size(specs[like])).total
        for task, spec in missing.items():
            ratio = count_flops(network_of(spec), input_size(spec)).total / own
            known[task] = StepTime(times.fixed, times.image * ratio), "predicted"


def _stage(
    task: str,
    spec: TaskSpec,
    params: Params,
    cluster: PlannedCluster,
    assumptions: Assumptions,
    known: Mapping[str, tuple[StepTime, Origin]],
    samples: Mapping[str, int],
) -> StageEstimate:
    training, group = params.active.training_of(task).training, samples_per_group(spec)
    model, size = network_of(spec), input_size(spec)
    data = dataset_size(task, params, Layout(params.recipe), samples)
    batch = divided(training, cluster.workers, group)
    parameters = count_parameters(model)
    bf16 = training.precision == "bf16" or (training.precision == "auto" and cluster.gpus)
    times, times_from = known.get(task, (None, _NOT_KNOWN))
    return StageEstimate(
        stage="pretrain" if task == PRETRAINING else f"finetune@{task}",
        network=spec.network.backbone,
        size=size,
        parameters=parameters,
        data=data,
        training=training,
        group=group,
        steps=steps_in(training.epochs, data.samples, training.global_batch),
        batch=batch,
        state=state_memory(parameters, batch.workers, training.zero_stage, training.ema_decay is not None),
        activations=activation_bytes(model, batch.micro_batch, size, bf16),
        times=times,
        times_from=times_from,
        checkpoint=checkpoint_bytes(model, training),
        assumptions=assumptions,
        nodes=cluster.nodes,
    )

"""The command `tcformer plan`: where the numbers come from, and the estimate as text or JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pipelines.layout import PARAMS
from pipelines.params import Params, load_params
from pipelines.planning.estimate import Assumptions, PlannedCluster, StageEstimate, estimate
from pipelines.planning.failures import Reliability
from pipelines.planning.text import as_text
from tcformer.errors import UserError
from tcformer.tasks import ALL_TASKS, PRETRAINING

_GIB = 2**30


@dataclass(frozen=True)
class PlanOptions:
    """Options of the command `plan`.

    Attributes:
        recipe: whose trainings; None: the present one.
        gpus: of the whole cluster; None: those of the joined Ray, or of this machine.
        nodes: machines.
        memory: of a GPU, GiB; None: not known, or asked of this machine.
        images_per_second: "NUMBER" for the pretraining, or "TASK=NUMBER"; of one GPU.
        samples: "TASK=NUMBER" of training samples.
        measure: time the networks on this machine's device.
        mtbf: mean time between the failures of one GPU, hours; 0: none fails.
        restart: seconds from a failure to the first new step.
        store_speed: MB a second.
        network: GB a second between two workers.
        overhead: seconds of a micro batch whatever its size.
        as_json: JSON instead of text.
    """

    recipe: str | None = None
    gpus: int | None = None
    nodes: int = 1
    memory: float | None = None
    images_per_second: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    measure: bool = False
    mtbf: float = 50_000.0
    restart: float = 120.0
    store_speed: float = 200.0
    network: float = 10.0
    overhead: float = 0.1
    as_json: bool = False


def plan(options: PlanOptions) -> str:
    """Estimate the trainings of a recipe.

    Raises:
        UserError: an option or params.yaml is wrong, or nothing is known of a dataset.
    """
    speeds = _by_task("--images-per-second", options.images_per_second, PRETRAINING)
    samples = {task: int(number) for task, number in _by_task("--samples", options.samples).items()}
    if options.measure and speeds:
        raise UserError("--measure and --images-per-second: expected one of them; leave one out")
    if options.gpus is not None and options.nodes > options.gpus:
        raise UserError(f"--nodes {options.nodes}: expected at most --gpus {options.gpus}, the GPUs of all machines")
    params = load_params(PARAMS)
    params = params.model_copy(update={"recipe": options.recipe or params.recipe})
    cluster = _cluster(options, params)
    assumptions = Assumptions(
        reliability=Reliability(options.mtbf * 3600 if options.mtbf else inf, options.restart),
        store=options.store_speed * 1e6,
        network=options.network * 1e9,
        fixed=options.overhead,
    )
    stages = estimate(params, cluster, assumptions, speeds=speeds, samples=samples, measured=options.measure)
    if options.as_json:
        return json.dumps({"cluster": dataclasses.asdict(cluster), "stages": [_to_json(s) for s in stages]}, indent=1)
    return as_text(params.recipe, cluster, assumptions, stages)


def _by_task(option: str, given: Sequence[str], default: str = "") -> dict[str, float]:
    """Numbers by task, of texts such as "face=800" or, for the default task, "800"."""
    numbers = {}
    for text in given:
        task, separator, number = text.rpartition("=")
        task = task if separator else default
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if task not in ALL_TASKS or not 0 < value < inf:
            form = "TASK=NUMBER" if not default else f"NUMBER (of {default}) or TASK=NUMBER"
            raise UserError(f"{option} {text}: expected {form} with a number above 0; tasks are {', '.join(ALL_TASKS)}")
        numbers[task] = value
    return numbers


def _cluster(options: PlanOptions, params: Params) -> PlannedCluster:
    memory = None if options.memory is None else options.memory * _GIB
    if options.gpus is not None:
        machines = f"{options.nodes} machine{'s' if options.nodes > 1 else ''}"
        return PlannedCluster(options.gpus, options.nodes, True, memory, f"{options.gpus} GPUs in {machines}, as given")
    if params.cluster.address or os.environ.get("RAY_ADDRESS"):
        from pipelines.adapters.ray import joined_resources, session

        with session(params.cluster):
            nodes, gpus = joined_resources()
        workers = gpus or params.cluster.most_workers
        of_what = f"{workers} {'GPUs' if gpus else 'CPU workers'} in {nodes} machines of the joined Ray"
        return PlannedCluster(workers, nodes, gpus > 0, memory, of_what)
    return _this_machine(params, memory)


def _this_machine(params: Params, memory: float | None) -> PlannedCluster:
    import psutil
    import torch

    if count := torch.cuda.device_count():
        memory = memory or float(torch.cuda.get_device_properties(0).total_memory)
        return PlannedCluster(count, 1, True, memory, f"the {count} GPUs of this machine")
    workers = params.cluster.most_workers
    memory = memory or psutil.virtual_memory().total / workers
    return PlannedCluster(workers, 1, False, memory, f"{workers} workers on the CPU of this machine")


def _to_json(stage: StageEstimate) -> dict[str, Any]:
    """The fields of an estimate, and what follows from them."""
    derived = (
        "memory", "images_per_second", "hours", "gpu_hours", "read_bytes", "checkpoint_seconds", "young_steps",
        "most_useful_workers",
    )  # fmt: skip
    fields = dataclasses.asdict(stage)
    del fields["training"], fields["assumptions"]
    return {**fields, **{name: getattr(stage, name) for name in derived}}

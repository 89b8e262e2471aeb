"""A trained model measured on its task's test set: predictions in parallel, metrics once."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import needs_storage, parallel_map, session, uses_gpus
from pipelines.datasets.location import DataLocation, fetch_dataset
from pipelines.datasets.prepared import Prepared
from pipelines.evaluation.headlines import write_parts
from pipelines.evaluation.token_measures import TokenMeasurement, headline_measures
from pipelines.params import InstructionSets, Params
from pipelines.trained import model_from_bytes, trained_task
from pipelines.training.instruction_sets import check_instruction_sets, environment_for
from pipelines.training.loading import validation_batches
from tcformer.memory import keep_freed_memory
from tcformer.metrics.points import Skipped
from tcformer.tasks import ALL_TASKS, TaskSpec


@dataclass(frozen=True)
class _Shard:
    """What predicts every n-th sample of a test set."""

    task: TaskSpec
    evaluation: Any
    data: DataLocation
    weights: bytes
    batch: int
    shards: int
    loader_processes: int
    instruction_sets: InstructionSets

    def predict(self, shard: int, at: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
        """The predictions for the samples shard, shard + shards, ...

        Args:
            shard: number of the first sample.
            at: receives what this process does while it takes long, in a few words.
        """
        import torch

        check_instruction_sets(self.instruction_sets)
        keep_freed_memory()
        task = self.task.build(fetch_dataset(self.data, at), self.evaluation)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = model_from_bytes(self.weights).to(device).eval()
        found: list[dict[str, Any]] = []
        batches = validation_batches(task.test_set(), shard, self.shards, self.batch, self.loader_processes)
        with torch.inference_mode():
            for samples in batches:
                found += task.predict(model, {name: value.to(device) for name, value in samples.items()})
        return found


def _measure_tokens(
    measurement: TokenMeasurement, at: Callable[[str], None] = lambda text: None, *, data: DataLocation
) -> dict[str, Any]:
    return replace(measurement, data_root=fetch_dataset(data, at)).measure()


def evaluate(task: str, weights: Path, data_root: Path, params: Params, out: Path) -> dict[str, Any]:
    """Predict `data_root`'s test set with `weights` and measure the predictions and the tokens.

    Writes to `out`: `metrics.json`, `predictions.json`, `keypoints.json` (errors of each keypoint), `tokens.json`
    (measures of the tokens by stage) and `parts.csv` (the main measure of each part or subset).

    Args:
        task: name of the task.
        weights: file that a training of the task wrote.
        data_root: folder of a dataset in the task's official layout.
        params: how to measure (`evaluate.<task>`) and where to run (`cluster`).
        out: folder of the stage's outputs.

    Returns:
        The metrics, the task's trivial baseline among them under "baseline". "points" contains the means of
        `keypoints.json` by part, "tokens" a few numbers of `tokens.json`; both are absent if they were not measured.
    """
    spec, evaluation = trained_task(task, weights), params.active.evaluation_options_of(task)
    options, shards = params.active.evaluation_of(task), params.cluster.most_workers
    whole = spec.build(data_root, evaluation)
    whole.test_set()  # faults of the data are reported before Ray starts
    if options.tokens:
        whole.val_set()
    data = DataLocation(str(data_root))
    remote = needs_storage(params.cluster)
    if remote:
        data = Prepared.of_layout(data_root, spec, evaluation).location_for_workers(params.cluster, spec, evaluation)
    content, training = weights.read_bytes(), params.active.training_of(task).training
    loaders, pinned = params.cluster.loader_processes, params.instruction_sets
    shard = _Shard(spec, evaluation, data, content, options.batch, shards, loaders, pinned)
    measurement = TokenMeasurement(spec, data_root, content, options.tokens, training)
    with session(params.cluster, environment_for(pinned)):
        each = partial(parallel_map, wait_limit=params.cluster.wait_limit, gpus=uses_gpus(), reports=remote)
        parts = each(shard.predict, range(shards), title=f"evaluate@{task}")
        [tokens] = each(partial(_measure_tokens, data=data), [measurement], title=f"tokens@{task}")
    predictions = [prediction for part in parts for prediction in part]
    metrics = whole.evaluate(predictions)
    keypoints = ALL_TASKS[task].keypoints(whole, predictions)
    if isinstance(keypoints, Skipped):
        by_keypoint = keypoints.to_json()
    else:
        by_keypoint = {"tables": {name: table.to_json() for name, table in keypoints.items()}}
        metrics["points"] = {name: table.by_part() for name, table in keypoints.items()}
    if headlines := headline_measures(tokens):
        metrics["tokens"] = headlines
    out.mkdir(parents=True, exist_ok=True)
    for name, content_of_file in (("metrics", metrics), ("keypoints", by_keypoint), ("tokens", tokens)):
        (out / f"{name}.json").write_text(json.dumps(content_of_file, indent=1))
    (out / "predictions.json").write_text(json.dumps(predictions))
    write_parts(out / "parts.csv", ALL_TASKS[task].parts(metrics))
    return metrics

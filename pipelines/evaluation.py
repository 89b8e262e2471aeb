"""A trained model measured on its task's test set: predictions in parallel, metrics once."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.adapters.mlflow import Run, flatten
from pipelines.adapters.ray import parallel_map, session, uses_gpus
from pipelines.layout import Layout
from pipelines.params import Params, spec_from_json
from pipelines.training.loading import validation_batches
from tcformer.tasks import TaskSpec


def read_weights_metadata(weights: Path) -> dict[str, str]:
    """What a training wrote beside its weights: `options` (JSON) and `training` (its key)."""
    from tcformer.models import read_about

    return read_about(weights)[1]


def trained_task(task: str, weights: Path) -> TaskSpec:
    """The task with the options that `weights` were trained with."""
    return spec_from_json(task, read_weights_metadata(weights)["options"])


@dataclass(frozen=True)
class _Shard:
    """What predicts every n-th sample of a test set."""

    task: TaskSpec
    evaluation: Any
    data_root: Path
    weights: bytes
    batch: int
    shards: int
    loader_processes: int

    def predict(self, shard: int) -> list[dict[str, Any]]:
        """The predictions for the samples shard, shard + shards, ..."""
        import torch

        from tcformer.models import load_model

        task = self.task.build(self.data_root, self.evaluation)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(self.weights)
            file.flush()
            model = load_model(Path(file.name)).to(device).eval()
        found: list[dict[str, Any]] = []
        batches = validation_batches(task.test_set(), shard, self.shards, self.batch, self.loader_processes)
        with torch.inference_mode():
            for samples in batches:
                found += task.predict(model, {name: value.to(device) for name, value in samples.items()})
        return found


def evaluate(task: str, weights: Path, data_root: Path, params: Params, out: Path) -> dict[str, Any]:
    """Predict `data_root`'s test set with `weights`, write `metrics.json` and `predictions.json` to `out`.

    Args:
        task: name of the task.
        weights: file that a training of the task wrote.
        data_root: folder of a dataset in the task's official layout.
        params: how to measure (`evaluate.<task>`) and where to run (`cluster`).
        out: folder of the stage's outputs.

    Returns:
        The metrics, the task's trivial baseline among them under "baseline".
    """
    spec, evaluation = trained_task(task, weights), params.active.evaluation_options_of(task)
    whole = spec.build(data_root, evaluation)
    whole.test_set()  # faults of the data are reported before Ray starts
    shards, batch = params.cluster.workers, params.active.evaluation_of(task).batch
    shard = _Shard(spec, evaluation, data_root, weights.read_bytes(), batch, shards, params.cluster.loader_processes)
    with session(params.cluster):
        parts = parallel_map(shard.predict, range(shards), gpus=uses_gpus(), title=f"evaluate@{task}")
    predictions = [prediction for part in parts for prediction in part]
    metrics = whole.evaluate(predictions)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (out / "predictions.json").write_text(json.dumps(predictions))
    return metrics


def record_results(weights: Path, stage: str, params: Params, metrics: dict[str, Any], files: Sequence[Path]) -> None:
    """Add a later stage's metrics and files to the MLflow run of the training that made `weights`."""
    key = read_weights_metadata(weights)["training"]
    tracked = Run(key, key, params.tracking.experiment, Layout(params.recipe).journals, {}, {"recipe": params.recipe})
    prefix = stage.replace("@", ".")
    tracked.metrics({f"{prefix}.{name}": value for name, value in flatten(metrics).items()})
    for path in files:
        tracked.artifact(path, stage.replace("@", "-"))
    tracked.close()

"""A trained model measured on its task's test set: predictions in parallel, metrics once."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.mlflow import Run, flatten
from pipelines.adapters.ray import parallel_map, session, uses_gpus
from pipelines.layout import Layout
from pipelines.params import Params
from pipelines.tasks import build_task
from pipelines.training.loading import validation_batches


def read_weights_metadata(weights: Path) -> dict[str, str]:
    """What a training wrote beside its weights: ``options`` (JSON) and ``training`` (its key)."""
    from tcformer.models import read_about

    return read_about(weights)[1]


def evaluate(
    task: str, weights: Path, data_root: Path, evaluation: dict[str, Any] | None, batch: int, params: Params, out: Path
) -> dict[str, Any]:
    """Predict ``data_root``'s test set with ``weights``, write ``metrics.json`` and ``predictions.json`` to ``out``.

    Returns:
        The metrics, the task's trivial baseline among them under "baseline".
    """
    options = json.loads(read_weights_metadata(weights)["options"])
    whole = build_task(task, options, data_root, evaluation)
    whole.test_set()  # faults of the data are told before Ray starts
    with session(params.cluster):
        shards = params.cluster.workers
        predict = partial(_predict_shard, task, options, data_root, evaluation, batch, shards, weights.read_bytes())
        parts = parallel_map(predict, range(shards), gpus=uses_gpus(), title=f"evaluate@{task}")
    predictions = [prediction for part in parts for prediction in part]
    metrics = whole.evaluate(predictions)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (out / "predictions.json").write_text(json.dumps(predictions))
    return metrics


def _predict_shard(
    task: str,
    options: dict[str, Any],
    data_root: Path,
    evaluation: dict[str, Any] | None,
    batch: int,
    shards: int,
    weights: bytes,
    shard: int,
) -> list[dict[str, Any]]:
    import torch

    from tcformer.models import load_model

    problem = build_task(task, options, data_root, evaluation)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(weights)
        file.flush()
        model = load_model(Path(file.name)).to(device).eval()
    found: list[dict[str, Any]] = []
    with torch.inference_mode():
        for samples in validation_batches(problem.test_set(), shard, shards, batch):
            found += problem.predict(model, {name: value.to(device) for name, value in samples.items()})
    return found


def record(weights: Path, stage: str, params: Params, metrics: dict[str, Any], files: list[Path]) -> None:
    """Add a later stage's metrics and files to the MLflow run of the training that made ``weights``."""
    key = read_weights_metadata(weights)["training"]
    tracked = Run(key, key, params.tracking.experiment, Layout(params.recipe).journals, {}, {"recipe": params.recipe})
    prefix = stage.replace("@", ".")
    tracked.metrics({f"{prefix}.{name}": value for name, value in flatten(metrics).items() if _is_number(value)})
    for path in files:
        tracked.artifact(path, stage.replace("@", "-"))
    tracked.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Trained weights: what their file says of their training, and the records that later stages add to it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.adapters.mlflow import DatasetUsed, Run
from pipelines.datasets.prepared import Prepared
from pipelines.dotted import leaves
from pipelines.layout import Layout
from pipelines.params import Params, spec_from_json
from pipelines.running.execution import current_execution, experiment_name
from tcformer.errors import UserError
from tcformer.models import read_about
from tcformer.tasks import ALL_TASKS, TaskSpec

if TYPE_CHECKING:
    from tcformer.models import Network


def read_weights_metadata(weights: Path) -> dict[str, str]:
    """What a training wrote beside its weights: `options` (JSON), `training` (its key) and the `step` they are from."""
    return read_about(weights)[1]


def trained_task(task: str, weights: Path) -> TaskSpec:
    """The task with the options that `weights` were trained with.

    Raises:
        UserError: a training of this project did not write them, or one with other options.
    """
    metadata = read_weights_metadata(weights)
    if not {"options", "training"} <= set(metadata):
        raise UserError(
            f"{weights}: its metadata have no options of a training: expected a file that a training of {task} "
            "wrote; train again, or name other weights as `initial` and train 0 epochs"
        )
    return spec_from_json(task, metadata["options"])


def model_from_bytes(weights: bytes) -> "Network":
    """Rebuild the network from the bytes of its file, which workers get instead of the file."""
    from tcformer.models import load_model

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(weights)
        file.flush()
        return load_model(Path(file.name))


def record_results(
    weights: Path,
    stage: str,
    params: Params,
    metrics: dict[str, Any],
    files: Sequence[Path],
    *,
    headlines: Mapping[str, object] | None = None,
    data: Prepared | None = None,
) -> None:
    """Add a later stage's results to the MLflow run of the training that made `weights`.

    Args:
        weights: file that a training wrote.
        stage: as DVC names it, "evaluate@face".
        params: what to record.
        metrics: of the stage, also nested.
        files: that it wrote.
        headlines: the measures by which runs are compared, see `headlines_of`.
        data: the dataset that the stage has read; None if `prepare` did not make it.
    """
    key = read_weights_metadata(weights)["training"]
    experiment = experiment_name()
    tracked = Run(
        key,
        key,
        params.tracking.experiment,
        Layout(params.recipe).journals,
        {},
        {"recipe": params.recipe, **({"dvc.experiment": experiment} if experiment else {})},
        mode="add",
        datasets=[dataset_used(data, f"{params.recipe}/{stage.partition('@')[2]}", "evaluation")] if data else [],
        execution=current_execution(),
    )
    prefix = stage.replace("@", ".")
    tracked.metrics({f"{prefix}.{name}": value for name, value in leaves(metrics).items()})
    tracked.headlines(headlines or {})
    for path in files:
        tracked.artifact(path, stage.replace("@", "-"))
    tracked.close()


def dataset_used(data: Prepared, name: str, context: str) -> DatasetUsed:
    """A prepared dataset as a run's input in MLflow: its `name`, and "training" or "evaluation" as the context."""
    return DatasetUsed(name, data.sha256, str(data.root), context)


def headlines_of(task: str, metrics: dict[str, Any]) -> dict[str, float | None]:
    """The few measures of an evaluation that the report begins with, by their short names: "body/AP", "face/NME"."""
    return {found.short: found.value for found in ALL_TASKS[task].part("report").headlines(metrics) if found.short}

"""Tables that belong to no single task: all headlines in one table, and names with values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipelines.dotted import leaves, parameter_text
from pipelines.params import Params, Training
from pipelines.report.numbers import cell_text, ratio_text
from tcformer.tables import Cell, Headline, Table
from tcformer.tasks import ALL_TASKS


def summary_table(headlines: Iterable[Headline], title: str = "What was learned") -> Table:
    """Each measured value beside its baseline, and the ratio of the two."""
    rows: list[tuple[Cell, ...]] = []
    for headline in headlines:
        ratio = None
        if headline.value is not None and headline.baseline is not None:
            ratio = ratio_text(headline.value / headline.baseline) if headline.baseline > 0 else "baseline is 0"
        baseline = f"{cell_text(headline.baseline, digits=3)} ({headline.baseline_name})"
        rows.append((headline.task, headline.name, headline.value, baseline, ratio))
    return Table(title, ("task", "metric", "value", "baseline", "ratio"), tuple(rows), "llrrr")


def sizes_table(title: str, sizes: Mapping[str, Mapping[str, float]] | None) -> Table:
    """Mean grid cells a token of each stage covers, on people or faces and around them; from `visualize`."""
    rows = [
        (stage.removeprefix("stage"), size["cells_per_token_on_person"], size["cells_per_token_around"])
        for stage, size in (sizes or {}).items()
    ]
    note = "Means over the drawn pictures. On a fixed grid both are 1, 4, 16 and 64."
    columns = ("stage", "on the person or face", "around")
    return Table(f"{title}: grid cells a token covers", columns, tuple(rows), digits=1, note=note)


_SETTINGS: dict[str, Callable[[Any, Training], object]] = {
    "crop, pixels": lambda options, training: getattr(options, "input_size", "-"),
    "codec of heat maps": lambda options, training: getattr(options, "codec", "-"),
    "drop path": lambda options, training: getattr(options, "drop_path", "-"),
    "epochs": lambda options, training: training.epochs,
    "images in an optimiser step": lambda options, training: training.global_batch,
    "precision": lambda options, training: training.precision,
    "learning rate": lambda options, training: training.optimizer.lr,
    "schedule": lambda options, training: training.optimizer.schedule,
    "warm-up, steps": lambda options, training: training.optimizer.warmup_steps,
    "weight decay": lambda options, training: training.optimizer.weight_decay,
    "largest norm of the gradient": lambda options, training: training.optimizer.clip_norm or "any",
    "moving average of the weights": lambda options, training: training.ema_decay or "none",
    "weights that are kept": lambda options, training: training.keep,
    "seed": lambda options, training: training.seed,
}


def settings_table(params: Params) -> Table:
    """The settings of each training by which people compare trainings; params.yaml has all."""
    recipe = params.active
    trainings = {task: (recipe.spec_of(task).options, recipe.training_of(task).training) for task in recipe.tasks}
    rows = [(name, *(_setting(read(*training)) for training in trainings.values())) for name, read in _SETTINGS.items()]
    network = recipe.network
    note = (
        f"Backbone: {network.backbone}; tokens are reduced by {network.token_reduction}. params.yaml has all settings, "
        "and dvc params diff shows what differs between experiments."
    )
    titles = (ALL_TASKS[task].part("report").TITLE for task in recipe.tasks)
    return Table("Settings of the trainings", ("setting", *titles), tuple(rows), note=note)


def _setting(value: object) -> str:
    return " × ".join(map(str, value)) if isinstance(value, (list, tuple)) else parameter_text(value)


def mapping_table(title: str, mapping: Mapping[str, Any] | None) -> Table:
    """Names and values (parameters, hashes of data, versions); names of nested values are joined by dots."""
    rows = tuple((name, _listed(value)) for name, value in leaves(mapping or {}).items())
    return Table(title, ("name", "value"), rows, align="ll")


def _listed(value: object) -> str:
    return ", ".join(map(parameter_text, value)) if isinstance(value, (list, tuple)) else parameter_text(value)

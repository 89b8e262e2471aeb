"""What a finished training leaves for DVC: weights, curves, metrics, provenance; no times, no names of machines."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.layout import LAST_WEIGHTS, WEIGHTS
from pipelines.training.loop import BROKEN, HISTORY, SKIPPED
from tcformer.models import read_about


def write_outputs(finished: Path, out: Path, provenance: dict[str, Any]) -> None:
    """Write a stage's outputs to `out`.

    Args:
        finished: the verified folder with the final weights and the history.
        out: `model.safetensors`, `training.csv`, `validation.csv`, `metrics.json` and `provenance.json` go there. The
            metrics are those of the final weights, and their "steps" the optimiser steps that these weights have made.
            If the final weights are those of the best validation, `last.safetensors` has those of the last step.
        provenance: content of the last.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(finished / WEIGHTS, out / WEIGHTS)
    if (finished / LAST_WEIGHTS).is_file():
        shutil.copyfile(finished / LAST_WEIGHTS, out / LAST_WEIGHTS)
    else:  # DVC, which does not know this file, leaves that of another training
        (out / LAST_WEIGHTS).unlink(missing_ok=True)
    history = json.loads((finished / HISTORY).read_text())
    rows = [row for row in history if "loss" in row]
    validations = [row for row in history if "loss" not in row]
    write_csv(out / "training.csv", rows, "loss")
    write_csv(out / "validation.csv", validations, "val_loss")
    # The step that the final weights are from: with `keep: best` not always the last one.
    step = int(read_about(finished / WEIGHTS)[1]["step"])
    validation = next(row for row in validations if row["step"] == step)
    final = {name: value for name, value in validation.items() if name.startswith("val_")}
    losses = [row["loss"] for row in rows if row["step"] <= step]
    if losses:  # none where no epoch was trained
        final["loss"] = losses[-1]
    final["replaced_images"] = json.loads((finished / BROKEN).read_text())["replaced"]
    final["skipped_steps"] = json.loads((finished / SKIPPED).read_text())["total"]
    (out / "metrics.json").write_text(json.dumps({"steps": step, **final}, indent=1))
    (out / "provenance.json").write_text(json.dumps(provenance, indent=1, sort_keys=True))


def write_csv(path: Path, rows: Sequence[dict[str, float]], measure: str) -> None:
    """Write rows of measurements; a value that a row lacks is an empty field.

    Args:
        path: of the file.
        rows: name -> value, in the order of the steps.
        measure: the column beside `step` and `epoch` where there are no rows.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step", "epoch", measure]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in rows)

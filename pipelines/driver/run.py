"""A training as the driver sees it: name it by what determines it, launch it, record it, collect its results."""

import csv
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.adapters.mlflow import Run
from pipelines.adapters.ray import Event, run_training, session
from pipelines.adapters.storage import Store
from pipelines.datasets.prepared import Prepared
from pipelines.driver.progress import Progress
from pipelines.layout import Layout
from pipelines.params import Params, Recipe, Training, TrainingStage
from pipelines.provenance import code_version, git_revision, sha256_of_json, versions
from pipelines.tasks import build_task
from pipelines.training import checkpoint
from pipelines.training.loop import BROKEN, HISTORY, WEIGHTS, train
from tcformer.errors import UserError
from tcformer.files import sha256_of_file


@dataclass(frozen=True)
class Plan:
    """What determines a training's result."""

    stage: str  # DVC's name of the stage, "finetune@wholebody"
    task: str
    options: dict[str, Any]
    training: Training
    data: Prepared
    initial: Path | None  # weights file that the network or its backbone starts from

    def __post_init__(self) -> None:
        if self.initial and not self.initial.is_file():
            raise UserError(
                f"there is no weights file {self.initial} to start {self.stage} from: run the stage that makes it, or "
                f"give the path of one as {self.stage.replace('@', '.')}.initial"
            )

    def fingerprint(self) -> str:
        """Identity of the result: parameters, data, initial weights and code, but not where it runs."""
        return sha256_of_json(
            {
                "stage": self.stage,
                "options": self.options,
                "training": self.training.model_dump(mode="json"),
                "data": self.data.sha256,
                "initial": sha256_of_file(self.initial) if self.initial else None,
                "code": code_version(),
                "torch": versions()["torch"],
            }
        )

    @property
    def key(self) -> str:
        """Name of the training's folder and MLflow identity."""
        return f"{self.stage.replace('@', '-')}-{self.fingerprint()[:16]}"


def options_of(recipe: Recipe, section: TrainingStage[Any]) -> dict[str, Any]:
    """A section's task options with the recipe's network, as plain JSON values."""
    network = json.loads(recipe.model_dump_json(include={"network"}))
    return {**json.loads(section.model_dump_json())["task"], **network}


def run(plan: Plan, params: Params, out: Path, fresh: bool = False) -> None:
    """Train ``plan``, or go on with it, or take the finished result; write weights and curves to ``out``.

    Args:
        fresh: forget checkpoints and start anew.

    Raises:
        UserError: another process trains the same plan, parameters that do not fit the machine, lost workers.
    """
    layout = Layout(params.recipe)
    key = plan.key
    root = params.cluster.storage or str(layout.checkpoints)
    store = Store(f"{root.rstrip('/')}/{key}")
    with _only_one(layout.checkpoints / f"{key}.lock"):
        if fresh:
            for name in store.folders():
                store.delete(name)
        elif store.read(f"{checkpoint.FINAL}/{checkpoint.MANIFEST}") is not None:
            print(f"{plan.stage}: already trained with these parameters, data and code: taking that result")
        elif store.folders():
            print(f"{plan.stage}: going on from the checkpoints in {store.root}")
        tracked = Run(
            key,
            plan.stage,
            params.tracking.experiment,
            layout.journals,
            {"options": plan.options, "training": plan.training.model_dump(mode="json")},
            {
                "dvc.stage": plan.stage,
                "recipe": params.recipe,
                "git.revision": git_revision(),
                "data.sha256": plan.data.sha256,
                **{f"version.{name}": version for name, version in versions().items()},
            },
        )
        status = "FAILED"
        try:
            _launch(plan, params, store, tracked)
            _collect(plan, key, store, out)
            for path in sorted(out.iterdir()):
                tracked.artifact(path)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracked.close(status)


def _launch(plan: Plan, params: Params, store: Store, tracked: Run) -> None:
    """Run the training loop on Ray's workers unless its final weights are there."""
    if checkpoint.fault(store, checkpoint.FINAL, _cache(store)) is None:
        return
    _check_data(plan)
    initial = None
    if plan.initial:
        initial = f"initial{plan.initial.suffix}"
        store.put(plan.initial, initial)
    progress = Progress(plan.stage)
    told: set[str] = set()

    def on_event(event: Event) -> None:
        if event["kind"] == "note":  # workers that were started again say again what they said since the checkpoint
            if event["text"] in told:
                return
            told.add(event["text"])
        progress.show(event)
        if event["kind"] == "row":
            values = {k: v for k, v in event.items() if k not in ("kind", "step") and isinstance(v, float)}
            tracked.metrics(values, event["step"])

    with session(params.cluster):
        job = {
            "name": plan.stage.replace("@", "-"),
            "task": plan.task,
            "options": plan.options,
            "data": plan.data.for_workers(params.cluster.storage),
            "training": plan.training.model_dump(mode="json"),
            "store": store.root,
            "ray_storage": f"{store.root}/ray",
            "initial": initial,
            "key": plan.key,
            "loader_processes": params.cluster.loader_processes,
        }
        try:
            run_training(train, job, params.cluster, on_event)
        finally:
            progress.close()


def _check_data(plan: Plan) -> None:
    """Tell faults of the annotations and missing images before any worker starts: the data sets check themselves."""
    task = build_task(plan.task, plan.options, plan.data.root)
    task.train_set()
    task.val_set()


def _collect(plan: Plan, key: str, store: Store, out: Path) -> None:
    """Write the outputs that DVC keeps; their bytes depend on nothing but the training's result."""
    folder = checkpoint.open_verified(store, checkpoint.FINAL, _cache(store))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / WEIGHTS, out / WEIGHTS)
    history = json.loads((folder / HISTORY).read_text())
    rows = [row for row in history if "loss" in row]
    validations = [row for row in history if "loss" not in row]
    _write_csv(out / "training.csv", rows, "loss")
    _write_csv(out / "validation.csv", validations, "val_loss")
    final = {name: value for name, value in validations[-1].items() if name.startswith("val_")}
    if rows:  # none where no epoch was trained
        final["loss"] = rows[-1]["loss"]
    final["replaced_images"] = json.loads((folder / BROKEN).read_text())["replaced"]
    (out / "metrics.json").write_text(json.dumps({"steps": validations[-1]["step"], **final}, indent=1))
    (out / "provenance.json").write_text(
        json.dumps({"training": key, "data": plan.data.sha256, "options": plan.options}, indent=1, sort_keys=True)
    )


def _write_csv(path: Path, rows: list[dict[str, float]], measure: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        columns = list(rows[0]) if rows else ["step", "epoch", measure]
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in rows)


def _cache(store: Store) -> Path:
    """Where the files of a remote store are copied to on this machine."""
    return Layout("remote").checkpoints / store.root.rsplit("/", 1)[-1]


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a training for this process. Raises UserError naming the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"this training is running already ({lock.read().strip()}): wait for it, or stop that process"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield

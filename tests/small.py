"""The sample recipe with a few tiny pictures, and datasets of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.datasets.location import DataLocation
from pipelines.params import Params, load_params
from pipelines.running.commands import git
from pipelines.training.job import Job
from tcformer.tasks import PRETRAINING, TASKS

ROOT = Path(__file__).resolve().parents[1]


def parameters(folder: Path, **changes: Any) -> Params:
    """params.yaml with a sample recipe for a few tiny pictures, and `changes`: dots are two underscores."""
    small: dict[str, Any] = {
        "data__imagenet__generate__train_images_per_class": 1,
        "data__imagenet__generate__val_images_per_class": 1,
        "data__wholebody__generate__train_images": 16,
        "data__wholebody__generate__val_images": 2,
        "data__face__generate__train_images": 8,
        "data__face__generate__test_images": 2,
        "data__mesh__generate__train_images": 8,
        "data__mesh__generate__test_images": 2,
        "finetune__wholebody__task__input_size": [64, 64],
        "pretrain__training__global_batch": 6,
    }
    for task in TASKS:
        small[f"data__{task}__generate__image_size"] = [64, 64]
        training = "pretrain" if task == PRETRAINING else f"finetune__{task}"
        small[f"{training}__training__epochs"] = 1
        small[f"{training}__training__log_every"] = 1
        if task != PRETRAINING:
            small[f"{training}__training__global_batch"] = 4
    yaml = YAML()
    tree = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in {**small, **changes}.items():
        *sections, leaf = name.split("__")
        node = tree["sample"]
        for section in sections:
            node = node[section]
        assert leaf in node, name
        node[leaf] = value
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)
    return load_params(path)


def commit(folder: Path) -> None:
    """Commit all files of a folder, which becomes a git repository."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "All files")


def generate(task: str, params: Params, root: Path) -> Path:
    """Generate a task's dataset below `root`, in this process; returns its folder."""
    TASKS[task].part("generate").generate(
        root / task, params.sample.data_of(task).generate, map=lambda function, items: [function(i) for i in items]
    )
    return root / task


def face_job(folder: Path, data: DataLocation | None = None, **changes: Any) -> Job:
    """A training on 8 faces, three epochs of two steps; `changes` are of the section `finetune.face`, as above.

    Args:
        folder: for params.yaml, the dataset and the store.
        data: the dataset; it is generated if there is none.
    """
    settings = {"training__epochs": 3, "training__checkpoint_every": 2, "task__input_size": [32, 32], **changes}
    params = parameters(folder, **{f"finetune__face__{name}": value for name, value in settings.items()})
    return Job(
        name="finetune-face",
        key="finetune-face-test",
        task=params.sample.spec_of("face"),
        data=data or DataLocation(str(generate("face", params, folder))),
        training=params.sample.training_of("face").training,
        store=str(folder / "store"),
        initial=None,
        loader_processes=0,
    )

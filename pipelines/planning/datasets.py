"""Samples and bytes of a recipe's datasets, prepared or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from pipelines.datasets.prepared import MANIFEST, Prepared
from pipelines.layout import ROOT, Layout
from pipelines.params import Params
from tcformer.errors import UserError
from tcformer.tasks import ALL_TASKS

#: Training samples of the official datasets that `OfficialDataset.published_counts` does not name.
#: wholebody: persons with annotated body keypoints in COCO's train2017. mesh: the largest set of the mixture, SPIN's
#: file of Human3.6M, whose length is that of an epoch. Both are quoted from memory of mmpose's and SPIN's logs.
_SAMPLES: Final = {"wholebody": 149_813, "mesh": 312_188}
LOCK: Final = "dvc.lock"
_COUNTED: Final = {"imagenet": "train images", "face": "train faces"}
#: Bytes of the downloads. imagenet: ILSVRC2012_img_train.tar and _val.tar; wholebody: train2017.zip and val2017.zip,
#: quoted from memory.
_BYTES: Final = {"imagenet": 147_897_477_120 + 6_744_924_160, "wholebody": 19_336_861_798 + 815_585_330}


@dataclass(frozen=True)
class DatasetSize:
    """The size of a training set.

    Attributes:
        samples: of an epoch.
        samples_from: where the number comes from: "prepared", "parameters", "published", "given".
        stored: bytes of the dataset's files; None if they are not known.
        stored_from: where the bytes come from.
    """

    samples: int
    samples_from: str
    stored: int | None
    stored_from: str


def dataset_size(task: str, params: Params, layout: Layout, given: Mapping[str, int]) -> DatasetSize:
    """The size of a task's dataset: of the prepared files if they are there, else as parameters or publishers say.

    Args:
        task: its name.
        params: whose active recipe names the dataset.
        layout: of the recipe.
        given: samples by task that the user knows better.

    Raises:
        UserError: nothing is known of the dataset.
    """
    folder = layout.data(task)
    samples, source = _samples(task, params, folder)
    if task in given:
        samples, source = given[task], "given"
    if samples is None:
        raise UserError(
            f"--samples: the number of training samples of {task} is not known: expected a prepared dataset or "
            f"`--samples {task}=NUMBER`; run `python -m stages.prepare {task}`, or give it"
        )
    stored, stored_from = _stored(task, params, folder)
    return DatasetSize(samples, source, stored, stored_from)


def _samples(task: str, params: Params, folder: Path) -> tuple[int | None, str]:
    data = params.active.data_of(task)
    if (folder / MANIFEST).is_file():
        root = Prepared.open(folder).root
        if root.is_dir():
            return len(params.active.spec_of(task).build(root).train_set()), "prepared"
    if data.source == "generated" and data.generate is not None:
        return _generated(data.generate, params.active.training_of(task).task), "parameters"
    official = ALL_TASKS[task].part("official").OFFICIAL
    counts = official.published_counts if official else {}
    return counts.get(_COUNTED.get(task, ""), _SAMPLES.get(task)), "published"


def _generated(options: Any, of_task: Any) -> int | None:  # noqa: ANN401 - dataclasses that the tasks define
    """Training samples of a generated dataset; of pictures with several people their mean number."""
    per_class = getattr(options, "train_images_per_class", None)
    if per_class is not None:
        return int(per_class * of_task.num_classes)
    images = getattr(options, "train_images", None)
    fewest, most = getattr(options, "people", (1, 1))
    return None if images is None else round(images * (fewest + most) / 2)


def _stored(task: str, params: Params, folder: Path) -> tuple[int | None, str]:
    manifest = folder / MANIFEST
    if manifest.is_file() and not json.loads(manifest.read_text())["root"]:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), "prepared"
    if params.active.data_of(task).source == "official":
        return _BYTES.get(task), "published"
    return _recorded(task, folder), LOCK


def _recorded(task: str, folder: Path) -> int | None:
    """The size of a generated dataset in the run that git has recorded; None if there is none."""
    outs = _recorded_stages().get(f"prepare@{task}", {}).get("outs", ())
    sizes = [out["size"] for out in outs if ROOT / out["path"] == folder]
    return int(sizes[0]) if sizes else None


@cache
def _recorded_stages() -> dict[str, Any]:
    lock = ROOT / LOCK
    tree = YAML(typ="safe").load(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    stages: dict[str, Any] = tree.get("stages") or {}
    return stages

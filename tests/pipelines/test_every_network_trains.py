"""Each ablation and baseline of the paper trains through Ray and DeepSpeed, chosen by one value in params.yaml.

One group of workers trains them all, one after the other, since starting it takes longer than two steps.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

import tcformer
from pipelines.adapters.ray import run_training, session
from pipelines.adapters.storage import Store
from pipelines.driver.run import options_of
from pipelines.params import Params, load_params
from pipelines.training import checkpoint
from pipelines.training.loop import HISTORY, train
from tcformer import synthetic

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.pipeline]
ROOT = Path(__file__).resolve().parents[2]

REDUCTION, BACKBONE = "network.token_reduction", "network.backbone"
NECK, KEYPOINTS = "finetune.wholebody.task.neck", "finetune.wholebody.task.keypoints"
#: (task, parameter, value): what `dvc exp run -S sample.<parameter>=<value>` would change.
CHOICES: list[tuple[str, str, str]] = [
    *(("wholebody", REDUCTION, value) for value in ("ctm_topk", "conv", "local_ctm")),
    ("imagenet", REDUCTION, "conv"),
    ("wholebody", NECK, "deconv"),
    *(("wholebody", KEYPOINTS, value) for value in ("body", "foot", "face", "hand")),
    *(
        ("wholebody", BACKBONE, f"timm/{name}")
        for name in (
            *("resnet50", "resnet101", "resnet152", "hrnet_w32", "hrnet_w48"),
            *("pvt_v2_b2", "swin_tiny_patch4_window7_224", "deit_small_patch16_224"),
        )
    ),
    *(("imagenet", BACKBONE, f"timm/{name}") for name in ("resnet50", "hrnet_w32", "pvt_v2_b2")),
    ("face", BACKBONE, "timm/hrnet_w18"),
    ("mesh", BACKBONE, "timm/resnet50"),
]


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
    for task in ("imagenet", "wholebody", "face", "mesh"):
        small[f"data__{task}__generate__image_size"] = [64, 64]
        training = "pretrain" if task == "imagenet" else f"finetune__{task}"
        small[f"{training}__training__epochs"] = 1
        small[f"{training}__training__log_every"] = 1
        if task != "imagenet":
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


def test_each_trains_two_steps(tmp_path: Path) -> None:
    plain = parameters(tmp_path)
    for task in ("imagenet", "wholebody", "face", "mesh"):
        generate: Any = getattr(synthetic, f"generate_{task}")
        generate(tmp_path / task, getattr(plain.sample.data, task).generate)
    jobs = []
    for number, (task, name, value) in enumerate(CHOICES):
        recipe = parameters(tmp_path, **{name.replace(".", "__"): value}).sample
        section: Any = recipe.pretrain if task == "imagenet" else getattr(recipe.finetune, task)
        jobs.append(
            {
                "task": task,
                "options": options_of(recipe, section),
                "data": {"root": str(tmp_path / task)},
                "training": section.training.model_dump(mode="json"),
                "store": str(tmp_path / "stores" / str(number)),
                "initial": None,
                "key": str(number),
                "loader_processes": 0,
            }
        )

    # Weights that are given and not trained any further, such as the authors'.
    kept = tcformer.create_model("tcformer_nano", "imagenet", num_classes=12)
    given = tmp_path / "stores" / "kept" / "given.safetensors"
    tcformer.save_model(kept, given)
    recipe = parameters(tmp_path, pretrain__training__epochs=0).sample
    training = recipe.pretrain.training.model_dump(mode="json")
    as_it_is = {**jobs[CHOICES.index(("imagenet", REDUCTION, "conv"))], "options": options_of(recipe, recipe.pretrain)}
    jobs.append({**as_it_is, "training": training, "store": str(given.parent), "initial": given.name, "key": "kept"})

    def train_all(job: dict[str, Any]) -> None:
        for each in job["jobs"]:
            train({**each, "post": job["post"]})

    whole = {"name": "every-network", "jobs": jobs, "ray_storage": str(tmp_path / "ray")}
    with session(plain.cluster):
        run_training(train_all, whole, plain.cluster, lambda event: None)
    for choice, job in zip(CHOICES, jobs, strict=False):
        store = Store(job["store"])
        assert checkpoint.fault(store, checkpoint.FINAL, tmp_path) is None, choice
        history = json.loads((Path(store.root) / checkpoint.FINAL / HISTORY).read_text())
        losses = [row["loss"] for row in history if "loss" in row]
        assert len(losses) >= 2 and all(math.isfinite(loss) for loss in losses), (choice, losses)
    same = tcformer.load_model(given.parent / checkpoint.FINAL / "model.safetensors").state_dict()
    assert all(torch.equal(value, same[name]) for name, value in kept.state_dict().items())

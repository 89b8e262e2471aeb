"""Each ablation and baseline of the paper trains through Ray and DeepSpeed, chosen by one value in params.yaml.

One group of workers trains them all, one after the other, since starting it takes longer than two steps.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tcformer
from pipelines.adapters.deepspeed import start_deepspeed
from pipelines.adapters.ray import run_training, session
from pipelines.adapters.storage import Store
from pipelines.datasets.location import DataLocation
from pipelines.running.process import Interrupts
from pipelines.training import checkpoint
from pipelines.training.job import Job
from pipelines.training.link import Link
from pipelines.training.loop import HISTORY, train
from tcformer.tasks import TASKS
from tests.small import generate, parameters

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

REDUCTION, BACKBONE = "network.token_reduction", "network.backbone"
NECK, KEYPOINTS = "finetune.wholebody.task.neck", "finetune.wholebody.task.keypoints"
#: (task, parameter, value): what `dvc exp run -S sample.<parameter>=<value>` would change.
CHOICES: list[tuple[str, str, object]] = [
    *(("wholebody", REDUCTION, value) for value in ("ctm_topk", "conv", "local_ctm", "ctm_grid")),
    ("imagenet", REDUCTION, "conv"),
    *(("wholebody", NECK, value) for value in ("deconv", "cr_mta")),
    ("wholebody", "network.place_weight", 0.5),
    ("wholebody", "network.token_place", True),
    ("wholebody", "network.cluster_after", 0.5),
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


def test_each_trains_two_steps(tmp_path: Path) -> None:
    plain = parameters(tmp_path)
    for task in TASKS:
        generate(task, plain, tmp_path)
    jobs = []
    for number, (task, name, value) in enumerate(CHOICES):
        recipe = parameters(tmp_path, **{name.replace(".", "__"): value}).sample
        jobs.append(
            Job(
                name="every-network",
                key=str(number),
                task=recipe.spec_of(task),
                data=DataLocation(str(tmp_path / task)),
                training=recipe.training_of(task).training,
                store=str(tmp_path / "stores" / str(number)),
                initial=None,
                loader_processes=0,
            )
        )

    # Weights that are given and not trained any further, such as the authors'.
    kept = tcformer.create_model("tcformer_nano", "imagenet", num_classes=12)
    given = tmp_path / "stores" / "kept" / "given.safetensors"
    tcformer.save_model(kept, given)
    recipe = parameters(tmp_path, pretrain__training__epochs=0).sample
    as_it_is = {"key": "kept", "store": str(given.parent), "initial": given.name}
    conv = jobs[CHOICES.index(("imagenet", REDUCTION, "conv"))]
    training = recipe.training_of("imagenet").training
    jobs.append(replace(conv, task=recipe.spec_of("imagenet"), training=training, **as_it_is))

    def train_all(first: Job, link: Link) -> None:
        for job in jobs:
            train(job, start_deepspeed, link)

    with session(plain.cluster):
        run_training(train_all, jobs[0], plain.cluster, [plain.cluster.most_workers], lambda event: None, Interrupts())
    for choice, job in zip(CHOICES, jobs, strict=False):
        store = Store(job.store)
        assert checkpoint.fault(store, checkpoint.FINAL, tmp_path) is None, choice
        history = json.loads((Path(store.root) / checkpoint.FINAL / HISTORY).read_text())
        losses = [row["loss"] for row in history if "loss" in row]
        assert len(losses) >= 2 and all(math.isfinite(loss) for loss in losses), (choice, losses)
    same = tcformer.load_model(given.parent / checkpoint.FINAL / "model.safetensors").state_dict()
    assert all(torch.equal(value, same[name]) for name, value in kept.state_dict().items())

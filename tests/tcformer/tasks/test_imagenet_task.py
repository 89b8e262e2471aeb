"""Image classification on class folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tcformer.data import ImageAugmentation, collate
from tcformer.tasks.imagenet.options import ImagenetOptions
from tcformer.tasks.imagenet.task import ImagenetTask
from tests.tcformer.networks import NETWORK as NANO
from tests.tcformer.tasks.options import options_are_strict

NETWORK = replace(NANO, backbone="tcformer")
IMAGES = ImagenetOptions(
    drop_path=0.1,
    num_classes=2,
    input_size=32,
    crop_fraction=0.875,
    augmentation=ImageAugmentation(
        crop_area=(0.08, 1.0),
        crop_aspect=(0.75, 4 / 3),
        flip_probability=0.5,
        rand_augment=9.0,
        rand_augment_std=0.5,
        color_jitter=0.4,
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        cutmix_probability=0.5,
        label_smoothing=0.1,
    ),
)


def test_options_are_strict_and_survive_json() -> None:
    options_are_strict(IMAGES)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("val", 3)):
        for label, name in enumerate(("n01", "n02")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                colour = (200 * label + 10 * i, 30, 200 - 200 * label)
                Image.new("RGB", (40, 30), colour).save(tmp_path / split / name / f"{i}.JPEG")
    return tmp_path


class Colour(nn.Module):
    """A stand-in network that tells the two colours apart."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        return torch.stack([mean[:, 2] - mean[:, 0], mean[:, 0] - mean[:, 2]], 1)


def test_classification_from_folders_to_accuracy(folders: Path) -> None:
    task = ImagenetTask(IMAGES, replace(NETWORK, backbone="tcformer_light"), folders)
    train, test = task.train_set(), task.test_set()
    batch = train.collate([train.sample(i, np.random.default_rng(i)) for i in range(8)])
    assert batch["targets"].shape == (8, 2)
    assert torch.isfinite(task.loss(Colour(), batch)["loss"])
    batch = collate([test.sample(i, None) for i in range(6)])
    sums = task.validate(Colour(), batch)
    assert [sums[k].item() for k in ("top1_sum", "top5_sum", "count")] == [6, 6, 6]
    predictions = task.predict(Colour(), batch)
    assert predictions[4] == {"index": 4, "label": 1, "answer": 1, "rank": 0}
    assert json.loads(json.dumps(predictions)) == predictions
    assert task.evaluate(predictions + predictions[:2]) == {
        **{"top1": 1.0, "top5": 1.0, "count": 6},
        "baseline": {"top1": 0.5, "top5": 1.0},
    }

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tcformer.data import ImageAugmentation, WholebodyAugmentation, collate
from tcformer.errors import UserError
from tcformer.heatmaps import heat_map_loss
from tcformer.heatmaps.encode import gaussian_heat_maps
from tcformer.models import NetworkOptions
from tcformer.tasks import TASKS
from tcformer.tasks.imagenet.options import ImagenetOptions
from tcformer.tasks.imagenet.task import ImagenetTask
from tcformer.tasks.wholebody.options import WholebodyEvaluation, WholebodyOptions
from tcformer.tasks.wholebody.task import WholebodyTask

NETWORK = NetworkOptions("tcformer", "ctm", (4, 2, 1), False, False)
POSE = WholebodyOptions(
    keypoints="all",
    neck="auto",
    drop_path=0.1,
    input_size=(256, 192),
    box_padding=1.25,
    sigma=2.0,
    augmentation=WholebodyAugmentation(0.3, 0.16, 0.5, 0.3, 8, 0.5, 40.0, 0.6),
)
ANNOTATED = WholebodyEvaluation("ground_truth", 0.0, True, 0.2, 0.9)
IMAGES = ImagenetOptions(
    drop_path=0.1,
    num_classes=2,
    input_size=32,
    crop_fraction=0.875,
    augmentation=ImageAugmentation((0.08, 1.0), (0.75, 4 / 3), 0.5, 9.0, 0.5, 0.4, 0.25, 0.8, 1.0, 0.5, 0.1),
)


@pytest.fixture
def persons(samples: Path) -> Path:
    """Root of the real persons."""
    return samples / "coco_wholebody"


class HeatMaps(nn.Module):
    """A stand-in network: one convolution of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 133, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


class Oracle:
    """Answers with the targets of the batch it was given, whether or not the images are mirrored."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __call__(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        maps, _ = gaussian_heat_maps(
            self.batch["points"],
            torch.ones_like(self.batch["weights"]),
            size,
            (size[0] // 4, size[1] // 4),
            2.0,
        )
        return maps


def test_tasks_by_name() -> None:
    assert [task.name for task in TASKS.values()] == list(TASKS) == ["imagenet", "wholebody", "face", "mesh"]
    assert all(entry.part("task").TASK.name == name for name, entry in TASKS.items())


@pytest.mark.parametrize("options", [POSE, ANNOTATED, IMAGES])
def test_options_are_strict_and_survive_json(options: Any) -> None:
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(type(options))
    assert adapter.validate_json(adapter.dump_json(options)) == options
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_json(json.dumps({**json.loads(adapter.dump_json(options)), "unknown": 1}))
    for field in fields(options):
        value = getattr(options, field.name)
        wrong = {**json.loads(adapter.dump_json(options)), field.name: {} if not is_dataclass(value) else 3}
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_json(json.dumps(wrong))


def test_loss_is_that_of_the_published_loop() -> None:
    random = torch.Generator().manual_seed(0)
    maps, targets = (torch.randn(3, 5, 4, 6, generator=random) for _ in range(2))
    weights = torch.tensor([[1.0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    loop = sum(
        nn.functional.mse_loss(maps[:, k] * weights[:, k, None, None], targets[:, k] * weights[:, k, None, None])
        for k in range(5)
    )
    loss = heat_map_loss(maps, targets, weights)
    assert torch.allclose(loss.mean(), loop / 5)
    assert loss[1] == 0


def test_a_batch_without_any_labelled_point_has_loss_zero_and_finite_gradients() -> None:
    task = WholebodyTask(replace(POSE, input_size=(64, 48)), NETWORK, Path("unused"))
    model = HeatMaps()
    batch = {
        "image": torch.randn(2, 3, 64, 48),
        "points": torch.zeros(2, 133, 2),
        "weights": torch.zeros(2, 133),
    }
    loss = task.loss(model, batch)["loss"]
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    sums = task.validate(model, batch)
    assert sums["loss_sum"] == 0 and sums["pck_sum"] == 2 and sums["count"] == 2


@pytest.mark.parametrize("size", [(30, 40), (64, 50), (16, 16)])
def test_a_crop_of_wrong_size_is_told(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="input_size"):
        WholebodyTask(replace(POSE, input_size=size), NETWORK, Path("unused"))


def test_a_split_without_persons_is_told(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/coco_wholebody_train_v1.0.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="no person to crop in the train split"):
        WholebodyTask(POSE, NETWORK, tmp_path).train_set()


def test_a_perfect_network_gets_nearly_full_marks(persons: Path) -> None:
    task = WholebodyTask(POSE, NETWORK, persons, ANNOTATED)
    data = task.test_set()
    predictions = []
    for start in range(0, len(data), 10):  # as shards: any division will do
        batch = collate([data.sample(i, None) for i in range(start, min(start + 10, len(data)))])
        model = Oracle(batch)
        sums = task.validate(model, batch)
        assert sums["loss_sum"] < 1e-6
        assert sums["pck_sum"] > 0.9 * sums["count"]
        no_flip = WholebodyTask(POSE, NETWORK, persons, replace(ANNOTATED, flip_test=False))
        predictions += no_flip.predict(model, batch)
    assert json.loads(json.dumps(predictions)) == predictions
    measures = task.evaluate(predictions)
    assert measures["body"]["AP"] > 0.9 and measures["foot"]["AP"] > 0.9
    assert 0.6 < measures["oks"] < 1
    assert task.evaluate(predictions[::-1])["wholebody"] == pytest.approx(measures["wholebody"], abs=0.02)


def test_the_mean_pose_is_measured_where_there_are_training_annotations(persons: Path, tmp_path: Path) -> None:
    for folder in ("val2017", "person_detection_results"):
        (tmp_path / folder).symlink_to((persons / folder).resolve())
    (tmp_path / "annotations").mkdir()
    real = (persons / "annotations/coco_wholebody_val_v1.0.json").read_text()
    for split in ("train", "val"):
        (tmp_path / f"annotations/coco_wholebody_{split}_v1.0.json").write_text(real)
    task = WholebodyTask(replace(POSE, input_size=(64, 48)), NETWORK, tmp_path, ANNOTATED)
    data = task.test_set()
    batch = collate([data.sample(i, None) for i in range(len(data))])
    measures = task.evaluate(task.predict(HeatMaps().eval(), batch))
    assert set(measures["baseline"]) == set(measures) - {"baseline"}
    assert 0 < measures["baseline"]["oks"] < 0.5 and 0 <= measures["baseline"]["body"]["AP"] < 0.2


def test_detections_are_predicted_and_evaluated(persons: Path) -> None:
    task = WholebodyTask(replace(POSE, input_size=(64, 48)), NETWORK, persons, replace(ANNOTATED, boxes="detections"))
    data = task.test_set()
    batch = collate([data.sample(i, None) for i in range(40)])
    torch.manual_seed(0)
    predictions = task.predict(HeatMaps().eval(), batch)
    assert len(predictions) == 40 and len(task.suppress(predictions)) <= 40
    measures = task.evaluate(predictions)
    assert "oks" not in measures and 0 <= measures["body"]["AP"] < 0.1


def test_training_on_real_crops_lowers_the_loss(persons: Path) -> None:
    task = WholebodyTask(replace(POSE, input_size=(64, 48)), NETWORK, persons)
    data = task.val_set()
    batch = collate([data.sample(i, None) for i in range(4)])
    torch.manual_seed(0)
    model = HeatMaps()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = task.loss(model, batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_evaluation_needs_its_options() -> None:
    with pytest.raises(ValueError, match="without evaluation options"):
        WholebodyTask(POSE, NETWORK, Path("unused")).test_set()


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

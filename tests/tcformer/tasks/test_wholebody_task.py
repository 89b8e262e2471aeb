"""Whole-body pose on real persons: losses, detections, evaluation, the mean pose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tcformer.data import WholebodyAugmentation, collate
from tcformer.errors import UserError
from tcformer.heatmaps import Codec
from tcformer.heatmaps.names import CodecName
from tcformer.tasks.wholebody.options import WholebodyEvaluation, WholebodyOptions
from tcformer.tasks.wholebody.task import WholebodyTask
from tests.tcformer.networks import NETWORK as NANO
from tests.tcformer.tasks.options import options_are_strict

NETWORK = replace(NANO, backbone="tcformer")
POSE = WholebodyOptions(
    keypoints="all",
    neck="auto",
    drop_path=0.1,
    input_size=(256, 192),
    box_padding=1.25,
    codec="mmpose",
    sigma=2.0,
    augmentation=WholebodyAugmentation(
        shift_probability=0.3,
        shift=0.16,
        flip_probability=0.5,
        half_body_probability=0.3,
        half_body_points=8,
        scale=0.5,
        rotation=40.0,
        rotation_probability=0.6,
    ),
)
ANNOTATED = WholebodyEvaluation(
    boxes="ground_truth", least_box_score=0.0, flip_test=True, decoding="auto", keypoint_threshold=0.2, oks_nms=0.9
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

    def __init__(self, batch: dict[str, Tensor], codec: Codec) -> None:
        self.batch, self.codec = batch, codec

    def __call__(self, images: Tensor) -> Tensor:
        return self.codec.encode(self.batch["points"], torch.ones_like(self.batch["weights"]))[0]


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
def test_a_crop_of_wrong_size_is_reported(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="input_size"):
        WholebodyTask(replace(POSE, input_size=size), NETWORK, Path("unused"))


def test_a_split_without_persons_is_reported(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/coco_wholebody_train_v1.0.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="no person to crop in the train split"):
        WholebodyTask(POSE, NETWORK, tmp_path).train_set()


@pytest.mark.parametrize("options", [POSE, ANNOTATED])
def test_options_are_strict_and_survive_json(options: WholebodyOptions | WholebodyEvaluation) -> None:
    options_are_strict(options)


@pytest.mark.parametrize("codec", ["mmpose", "unbiased"])
def test_a_perfect_network_gets_nearly_full_marks(codec: CodecName, persons: Path) -> None:
    pose = replace(POSE, codec=codec)
    task = WholebodyTask(pose, NETWORK, persons, evaluation=ANNOTATED)
    data = task.test_set()
    predictions = []
    for start in range(0, len(data), 10):  # as shards: any division will do
        batch = collate([data.sample(i, None) for i in range(start, min(start + 10, len(data)))])
        model = Oracle(batch, task.codec)
        sums = task.validate(model, batch)
        assert sums["loss_sum"] < 1e-6
        assert sums["pck_sum"] > 0.9 * sums["count"]
        no_flip = WholebodyTask(pose, NETWORK, persons, evaluation=replace(ANNOTATED, flip_test=False))
        predictions += no_flip.predict(model, batch)
    assert json.loads(json.dumps(predictions)) == predictions
    measures = task.evaluate(predictions)
    assert measures["body"]["AP"] > 0.9 and measures["foot"]["AP"] > 0.9
    # Some annotated points are outside the crop.
    assert (measures["oks"] > 0.98, measures["face"]["AP"] == 1) == (codec == "unbiased", codec == "unbiased")
    assert 0.6 < measures["oks"] < 1
    assert task.evaluate(predictions[::-1])["wholebody"] == pytest.approx(measures["wholebody"], abs=0.02)


def test_the_mean_pose_is_measured_where_there_are_training_annotations(persons: Path, tmp_path: Path) -> None:
    for folder in ("val2017", "person_detection_results"):
        (tmp_path / folder).symlink_to((persons / folder).resolve())
    (tmp_path / "annotations").mkdir()
    real = (persons / "annotations/coco_wholebody_val_v1.0.json").read_text()
    for split in ("train", "val"):
        (tmp_path / f"annotations/coco_wholebody_{split}_v1.0.json").write_text(real)
    task = WholebodyTask(replace(POSE, input_size=(64, 48)), NETWORK, tmp_path, evaluation=ANNOTATED)
    data = task.test_set()
    batch = collate([data.sample(i, None) for i in range(len(data))])
    measures = task.evaluate(task.predict(HeatMaps().eval(), batch))
    assert set(measures["baseline"]) == set(measures) - {"baseline"}
    assert 0 < measures["baseline"]["oks"] < 0.5 and 0 <= measures["baseline"]["body"]["AP"] < 0.2


def test_detections_are_predicted_and_evaluated(persons: Path) -> None:
    task = WholebodyTask(
        replace(POSE, input_size=(64, 48)), NETWORK, persons, evaluation=replace(ANNOTATED, boxes="detections")
    )
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

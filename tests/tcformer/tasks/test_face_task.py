import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tcformer.data import FaceAugmentation, collate
from tcformer.data.face.dataset import FaceDataset, list_file, load_faces
from tcformer.data.face.landmarks import ATTRIBUTES
from tcformer.errors import UserError
from tcformer.heatmaps import Codec
from tcformer.heatmaps.names import CodecName
from tcformer.metrics import face_nme
from tcformer.tasks.face.options import FaceEvaluation, FaceOptions
from tcformer.tasks.face.task import FaceTask
from tests.tcformer.networks import NETWORK
from tests.tcformer.tasks.options import options_are_strict

FACE = FaceOptions(
    neck="auto",
    drop_path=0.0,
    input_size=(64, 64),
    box_padding=1.25,
    codec="mmpose",
    sigma=1.5,
    augmentation=FaceAugmentation(scale=0.25, rotation=30.0, rotation_probability=0.6, flip_probability=0.5),
)
PLAIN = FaceEvaluation(flip_test=False, decoding="auto")


class HeatMaps(nn.Module):
    """A stand-in network: one convolution of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 98, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


class Oracle:
    """Answers with the targets of the batch it was given, and for mirrored images with the mirrored targets."""

    def __init__(self, batch: dict[str, Tensor], codec: Codec) -> None:
        self.batch, self.codec = batch, codec

    def __call__(self, images: Tensor) -> Tensor:
        width = images.shape[3]
        points = self.batch["points"]
        if not torch.equal(images, self.batch["image"]):
            from tcformer.data.face.landmarks import FLIP

            points = torch.stack([width - 1 - points[..., 0], points[..., 1]], -1)[:, FLIP.copy()]
        return self.codec.encode(points, torch.ones(points.shape[:2]))[0]


def face_points(seed: int) -> np.ndarray:
    """A face-like arrangement of points, (98, 2) pixels."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(99).uniform(30, 70, (98, 2))
    base[60], base[72] = (38, 42), (62, 42)
    return base + rng.normal(0, 1, (98, 2)) + rng.uniform(0, 8, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six training and five test faces in WFLW's layout."""
    list_file(tmp_path, "train").parent.mkdir(parents=True)
    (tmp_path / "WFLW_images/0--Parade").mkdir(parents=True)
    for split, count, first in (("train", 6, 0), ("test", 5, 50)):
        lines = []
        for i in range(first, first + count):
            image = np.random.default_rng(i).integers(0, 255, (100, 110, 3)).astype(np.uint8)
            name = f"0--Parade/{i}.png"
            Image.fromarray(image).save(tmp_path / "WFLW_images" / name)
            flags = [str(int(k == i % 5)) for k in range(6)]
            lines.append(
                " ".join([*(f"{v:.6f}" for v in face_points(i).ravel()), "30", "30", "70", "70", *flags, name])
            )
        list_file(tmp_path, split).write_text("\n".join(lines) + "\n")
    return tmp_path


def whole(data: FaceDataset) -> dict[str, Tensor]:
    return collate([data.sample(i, None) for i in range(len(data))])


@pytest.mark.parametrize("options", [FACE, PLAIN])
def test_options_are_strict_and_survive_json(options: FaceOptions | FaceEvaluation) -> None:
    options_are_strict(options)


@pytest.mark.parametrize("size", [(30, 40), (64, 50), (16, 16)])
def test_a_crop_of_wrong_size_is_reported(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="input_size"):
        FaceTask(replace(FACE, input_size=size), NETWORK, Path("unused"))


def test_an_unknown_neck_is_reported() -> None:
    with pytest.raises(ValueError, match="neck 'mtaa'; did you mean 'mta'"):
        replace(FACE, neck="mtaa")


def test_an_empty_or_missing_list_is_reported(root: Path) -> None:
    list_file(root, "train").write_text("")
    with pytest.raises(UserError, match=r"list_98pt_rect_attr_train\.txt: no face to crop"):
        FaceTask(FACE, NETWORK, root).train_set()
    with pytest.raises(UserError, match="no such file; expected the official WFLW layout"):
        FaceTask(FACE, NETWORK, root / "nowhere").train_set()


@pytest.mark.parametrize("codec", ["mmpose", "unbiased"])
def test_prediction_and_evaluation_of_a_perfect_network(codec: CodecName, root: Path) -> None:
    task = FaceTask(replace(FACE, codec=codec), NETWORK, root, evaluation=PLAIN)
    batch = whole(task.test_set())
    sums = task.validate(Oracle(batch, task.codec), batch)
    assert sums["loss_sum"] < 1e-6 and sums["count"] == 5
    predictions = task.predict(Oracle(batch, task.codec), batch)
    assert json.loads(json.dumps(predictions)) == predictions
    assert [record["index"] for record in predictions] == [0, 1, 2, 3, 4]
    faces = load_faces(list_file(root, "test"))
    found = np.array([record["points"] for record in predictions])
    # Half a heat-map pixel, or nothing, in image pixels.
    pixel = task.test_set().extent[:, 0] / 16 * (0.5 if codec == "mmpose" else 0)
    assert (np.abs(found - faces.points).max((1, 2)) <= pixel + 1e-3).all()
    nme = face_nme(found, faces.points)
    assert sums["nme_sum"].item() == pytest.approx(nme.sum(), rel=1e-3, abs=1e-5)
    measures = task.evaluate(predictions[::-1] + predictions[:2])  # in any order, some twice
    assert measures["full"]["NME"] == pytest.approx(nme.mean())
    assert (measures["full"]["NME"] < 1e-3) == (codec == "unbiased")
    assert measures["full"]["count"] == 5
    assert set(measures) == {"full", *ATTRIBUTES, "baseline"} and measures["blur"]["count"] == 0
    assert set(measures["baseline"]) == {"full", *ATTRIBUTES}
    assert json.loads(json.dumps(measures)) == measures


def test_the_flip_test_agrees_where_the_network_is_symmetric(root: Path) -> None:
    task = FaceTask(FACE, NETWORK, root, evaluation=replace(PLAIN, flip_test=True))
    batch = whole(task.test_set())
    flipped = np.array([record["points"] for record in task.predict(Oracle(batch, task.codec), batch)])
    task = FaceTask(FACE, NETWORK, root, evaluation=PLAIN)
    plain = np.array([record["points"] for record in task.predict(Oracle(batch, task.codec), batch)])
    pixel = task.test_set().extent[:, 0].max() / 16
    assert not np.array_equal(flipped, plain)
    assert np.abs(flipped - plain).max() <= pixel


def test_the_baseline_is_the_mean_training_shape(root: Path) -> None:
    """Faces that all are one shape at different places: the mean shape is right, up to the crop's rounding."""
    for split in ("train", "test"):
        path = list_file(root, split)
        changed = []
        for i, line in enumerate(path.read_text().splitlines()):
            points = face_points(0) + [i % 3, 2 * (i % 2)]
            changed.append(" ".join([*(f"{v:.6f}" for v in points.ravel()), *line.split()[196:]]))
        path.write_text("\n".join(changed) + "\n")
    task = FaceTask(FACE, NETWORK, root, evaluation=PLAIN)
    batch = whole(task.test_set())
    measures = task.evaluate(task.predict(HeatMaps(), batch))
    assert measures["baseline"]["full"]["NME"] < 1e-6
    assert measures["full"]["NME"] > 0.3
    list_file(root, "train").unlink()
    assert "baseline" not in task.evaluate(task.predict(HeatMaps(), batch))


def test_a_face_without_prediction_is_reported(root: Path) -> None:
    task = FaceTask(FACE, NETWORK, root, evaluation=PLAIN)
    batch = whole(task.test_set())
    with pytest.raises(UserError, match=r"1 of the 5 faces of .*test\.txt have none, first face 2 "):
        task.evaluate([record for record in task.predict(HeatMaps(), batch) if record["index"] != 2])


def test_prediction_needs_its_options(root: Path) -> None:
    task = FaceTask(FACE, NETWORK, root)
    with pytest.raises(ValueError, match="without evaluation options"):
        task.predict(HeatMaps(), whole(task.test_set()))


def test_the_network_learns_from_augmented_faces(root: Path) -> None:
    task = FaceTask(FACE, NETWORK, root)
    torch.manual_seed(0)
    model = task.build_model()
    data = task.train_set()
    batch = collate([data.sample(i, np.random.default_rng(i)) for i in range(6)])
    assert model(batch["image"]).shape == (6, 98, 16, 16)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = task.loss(model, batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_real_faces_at_the_published_size(samples: Path) -> None:
    task = FaceTask(replace(FACE, input_size=(256, 256)), NETWORK, samples / "wflw", evaluation=PLAIN)
    batch = whole(task.test_set())
    measures = task.evaluate(task.predict(Oracle(batch, task.codec), batch))
    # Heat maps of 64 x 64 with the quarter offset: no network can be better than about this.
    assert measures["full"]["NME"] < 0.02 and measures["full"]["FR10"] == 0
    assert measures["full"]["AUC10"] > 0.8 and measures["full"]["count"] == 4

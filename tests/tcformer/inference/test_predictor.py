"""Predictions for any picture are those of the evaluation; weights of any origin are recognised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tcformer
from tcformer.data import collate
from tcformer.data.crops import centre_and_extent, crop_matrix, cut_crop
from tcformer.data.imagenet.dataset import centre_crop
from tcformer.data.images import normalise, read_image
from tcformer.errors import UserError
from tcformer.inference import Boxes, load_any_weights, read_picture
from tcformer.inference.pictures import as_picture, cut
from tcformer.metrics.wholebody_results import keypoints_of
from tcformer.tasks.wholebody.task import WholebodyTask
from tests.tcformer.tasks.test_wholebody_task import ANNOTATED, NETWORK, POSE

WHOLEBODY = {"input_size": [256, 192], "box_padding": 1.25, "codec": "unbiased", "sigma": 2.0}


def weights(folder: Path, task: str, trained: dict[str, object] | None = None, **options: object) -> Path:
    """The file of a tiny network with random weights whose heat maps are not 0."""
    torch.manual_seed(0)
    model = tcformer.create_model("tcformer_nano", task, **options)
    if hasattr(model, "keypoint_head"):
        torch.nn.init.normal_(model.keypoint_head.final_layer.weight)
    path = folder / f"{task}.safetensors"
    tcformer.save_model(model, path, {"options": json.dumps(trained)} if trained else None)
    return path


@pytest.mark.parametrize("flip_test", [False, True])
def test_keypoints_are_those_of_the_evaluation(samples: Path, tmp_path: Path, flip_test: bool) -> None:
    pose, network = replace(POSE, codec="unbiased"), replace(NETWORK, backbone="tcformer_nano")
    task = WholebodyTask(pose, network, samples / "coco_wholebody", replace(ANNOTATED, flip_test=flip_test))
    data = task.test_set()
    rows = [row for row in range(len(data)) if data.crops.image_id[row] == data.crops.image_id[0]][:3]
    predictor = tcformer.Predictor.load(weights(tmp_path, "wholebody", WHOLEBODY), flip_test=flip_test, device="cpu")
    batch = collate([data.sample(row, None) for row in rows])
    expected = [keypoints_of(record) for record in task.predict(predictor.weights.model, batch)]

    image = data.folder / data.crops.images[int(data.crops.image_id[0])][0]
    boxes = Boxes(data.crops.box[rows], np.ones(len(rows)), np.arange(1, len(rows) + 1))
    result = predictor(image, boxes)
    found = np.concatenate([result.points, result.scores[..., None]], 2)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert [record["annotation_id"] for record in predictor.task.records(result)] == boxes.ids.tolist()
    assert [len(stages) for stages in result.tokens] == [4] * len(rows)
    assert result.tokens[0][3].num_tokens == 48
    assert predictor.draw_tokens(result).shape[2] == 3
    assert predictor.draw(image, result, threshold=-10).shape == read_image(image).shape


def test_batches_of_several_pictures_give_the_same_as_single_ones(samples: Path, tmp_path: Path) -> None:
    predictor = tcformer.Predictor.load(weights(tmp_path, "face", {**WHOLEBODY, "input_size": [64, 64]}), batch=2)
    files = sorted((samples / "persons").glob("*.*g"))
    boxes = [[[10, 20, 100, 120], [50, 60, 200, 200], [0, 0, 80, 90]], None]
    together = predictor.predict(files, boxes)
    for file, given, result in zip(files, boxes, together):
        np.testing.assert_allclose(predictor(file, given).points, result.points, atol=1e-3)
    assert [len(result) for result in together] == [3, 1]
    assert together[0].points.shape == (3, 98, 2)


def test_a_picture_without_people_has_an_empty_result(tmp_path: Path) -> None:
    predictor = tcformer.Predictor.load(weights(tmp_path, "wholebody", WHOLEBODY))
    image = np.full((40, 60, 3), 9, np.uint8)
    result = predictor(image, np.zeros((0, 4)))
    assert len(result) == 0 and (predictor.draw(image, result) == image).all()


def test_probabilities_are_those_of_the_crop_in_evaluations(samples: Path, tmp_path: Path) -> None:
    file = samples / "persons" / "grace_hopper.jpg"
    trained = {"input_size": 64, "crop_fraction": 0.875}
    predictor = tcformer.Predictor.load(weights(tmp_path, "imagenet", trained, num_classes=7))
    crop = np.asarray(centre_crop(Image.fromarray(read_image(file)), 64, 0.875))
    with torch.no_grad():
        expected = predictor.weights.model(torch.from_numpy(normalise(crop))[None]).softmax(1)
    # The file is decoded at full size, as it is small.
    found = predictor(file).outputs["probabilities"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    [record] = predictor.task.records(predictor(file))
    assert record["classes"][0]["class"] == int(expected.argmax())


def test_meshes_lie_in_their_boxes(tmp_path: Path) -> None:
    pytest.importorskip("smplx")
    predictor = tcformer.Predictor.load(weights(tmp_path, "mesh", {"input_size": 64}))
    image = np.full((200, 300, 3), 128, np.uint8)  # enlarging it changes nothing
    result = predictor(image, [[150, 50, 60, 120]])
    hips = result.points[0, [25 + 2, 25 + 3]].mean(0)  # of SPIN's last 24 joints
    assert np.abs(hips - [180, 110]).max() < 20, "an untrained network predicts the mean body in the middle"
    [record] = predictor.task.records(result)
    assert (len(record["pose"]), len(record["shape"]), record["side"]) == (72, 10, 144.0)
    drawn = predictor.draw(image, result) != image
    assert drawn[50:170, 150:210].mean() > 0.05 and not drawn[:, :60].any()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("wholebody", {}),
        ("wholebody", {"token_reduction": "conv", "keypoints": "hand"}),
        ("wholebody", {"neck": "deconv"}),
        ("face", {}),
        ("mesh", {}),
        ("imagenet", {"num_classes": 5}),
        ("features", {}),
    ],
)
def test_the_network_of_a_checkpoint_is_recognised(tmp_path: Path, task: str, options: dict[str, object]) -> None:
    model = tcformer.create_model("tcformer_nano", task, **options)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "other.pth")
    found = load_any_weights(tmp_path / "other.pth")
    assert found.model.config == model.config
    assert all((found.model.state_dict()[name] == tensor).all() for name, tensor in model.state_dict().items())


def test_a_network_of_tokens_alone_draws_its_tokens(tmp_path: Path) -> None:
    predictor = tcformer.Predictor.load(weights(tmp_path, "features", {"input_size": [64, 64]}), device="cpu")
    image = np.zeros((64, 64, 3), np.uint8)
    result = predictor(image)
    assert predictor.draw_tokens(result).ndim == 3
    for write in (lambda: predictor.draw(image, result), lambda: predictor.task.records(result)):
        with pytest.raises(UserError, match="with Predictor"):
            write()


def test_the_paper_s_options_hold_for_checkpoints(tmp_path: Path) -> None:
    torch.save(tcformer.create_model("tcformer_nano", "face").state_dict(), tmp_path / "face.pth")
    task = tcformer.Predictor.load(tmp_path / "face.pth").task
    assert task.input_size == (256, 256) and task.padding == 1.25 and task.codec.sigma == 1.5
    assert tcformer.Predictor.load(tmp_path / "face.pth", input_size=(64, 96)).task.input_size == (64, 96)


@pytest.mark.parametrize(
    ("task", "trained", "options", "message"),
    [
        ("wholebody", None, {"num_keypoints": 2}, "predicts 2 points"),
        ("wholebody", {**WHOLEBODY, "input_size": [256, "x"]}, {}, "option input_size"),
        ("wholebody", {**WHOLEBODY, "sigma": -1}, {}, "option sigma"),
        ("wholebody", {**WHOLEBODY, "codec": "other"}, {}, "codec 'other'"),
        ("face", {**WHOLEBODY, "input_size": [70, 70]}, {}, "multiples of 4"),
        ("face", {"input_size": 64, "box_padding": "1"}, {}, "option box_padding"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, task: str, trained: dict[str, object] | None, options: dict[str, object], message: str
) -> None:
    path = weights(tmp_path, task, trained, **options)
    with pytest.raises(UserError, match=message) as error:
        tcformer.Predictor.load(path)
    assert str(path) in str(error.value)


def test_unknown_tensors_and_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no known network"):
        load_any_weights(tmp_path / "other.pth")
    with pytest.raises(UserError, match="is a folder"):
        load_any_weights(tmp_path)
    with pytest.raises(UserError, match="device nonsense"):
        tcformer.Predictor.load(tmp_path / "other.pth", device="nonsense")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 0, 5]], "above 0"),
        ([[0, 0, float("nan"), 5]], "finite"),
        ([[1, 2, 3]], "expected lists"),
        ("face", "expected lists"),
        ([[500, 0, 5, 5]], "outside"),
    ],
)
def test_wrong_boxes_are_refused(tmp_path: Path, boxes: object, message: str) -> None:
    predictor = tcformer.Predictor.load(weights(tmp_path, "wholebody", WHOLEBODY))
    with pytest.raises(UserError, match=message):
        predictor(np.zeros((40, 60, 3), np.uint8), boxes)  # type: ignore[arg-type]


def test_crops_are_those_of_the_datasets_and_large_ones_are_averaged() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for box in ([20.5, 30, 200, 250], [-50, -60, 300, 300], [390, 290, 100, 100]):
        centre, extent = centre_and_extent(box, (128, 96), 1.25)
        expected = cut_crop(image, crop_matrix(centre, extent, 0.0, (128, 96)), (128, 96))
        assert (cut(as_picture(image), centre, extent, (128, 96)) == expected).all()
    stripes = np.zeros((1000, 40_000, 3), np.uint8)  # more pixels than OpenCV maps
    stripes[:, ::2] = 255
    centre, extent = centre_and_extent([0, 0, 40_000, 1000], (64, 64), 1.0)
    row = cut(as_picture(stripes), centre, extent, (64, 64))[32]
    assert np.abs(row[2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("turn", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, turn: int) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:10, :20] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = turn
    image.save(tmp_path / "photo.png", exif=exif)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "photo.png")))
    assert (read_picture(tmp_path / "photo.png").pixels == expected).all()
    assert (read_picture(tmp_path / "photo.png", upright=False).pixels == pixels).all()


def test_a_photo_above_pillows_limit_is_turned_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "photo.png", exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_picture(tmp_path / "photo.png").size == (60, 40)
    monkeypatch.setattr("tcformer.inference.pictures.MOST_PIXELS", 1000)  # its header is not trusted
    assert read_picture(tmp_path / "photo.png").size == (40, 60)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_keeps_its_coordinates(tmp_path: Path) -> None:
    pixels = np.zeros((4000, 6000, 3), np.uint8)
    pixels[1000:3000, 2000:3000] = 255
    Image.fromarray(pixels).save(tmp_path / "large.jpg")
    predictor = tcformer.Predictor.load(weights(tmp_path, "face", {**WHOLEBODY, "input_size": [64, 64]}))
    picture = predictor.read(tmp_path / "large.jpg")
    assert picture.factor == 2 and picture.size == (4000, 6000)
    assert predictor.read(tmp_path / "large.jpg", Boxes.of([100, 100, 200, 200])).factor == 1
    full = predictor(pixels)
    np.testing.assert_allclose(predictor(picture).crops, full.crops, atol=3)
    assert predictor.draw(picture, full).shape == (1067, 1600, 3)

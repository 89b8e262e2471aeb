"""The commands and the Python blocks that show predictions run as written, in a folder with the files they name."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tcformer
from stages.cli import cli
from tcformer.data.face.dataset import load_faces
from tcformer.inference import Boxes
from tcformer.models import Network, export
from tcformer.synthetic.smpl_body import write_smpl_body
from tests import own_points
from tests.tcformer.inference.test_predictor import WHOLEBODY, weights
from tests.test_documentation import ROOT, blocks, commands

pytestmark = pytest.mark.slow

PAGES = ("README.md", "docs/quick-start.md", "docs/predict.md")
RUN = ("predict", "tokens", "info", "convert", "score", "export")
SIZE = (64, 48)


class OnePerson:
    """Stands in for torchvision's detector, whose weights are a download."""

    def __init__(self, device: torch.device, least_score: float) -> None:
        pass

    def __call__(self, image: np.ndarray) -> Boxes:
        height, width = image.shape[:2]
        return Boxes(np.array([[0.0, 0.0, width, height]]), np.ones(1), np.zeros(1, np.int64))


def small_onnx(model: Network, path: Path, size: tuple[int, int], opset: int) -> float:
    """Stands in for the export, which takes half a minute and has its own tests."""
    from tests.tcformer.inference.test_onnx_runtime import simple_file

    assert Path("model.safetensors").is_file() and size == SIZE
    simple_file(path, Path("model.safetensors"), size, points=133)
    return 0.0


def make_weights(folder: Path) -> None:
    wholebody = weights(folder, "wholebody", {**WHOLEBODY, "input_size": list(SIZE)}).rename(
        folder / "model.safetensors"
    )
    shutil.copy(wholebody, folder / "random.safetensors")
    weights(folder, "face", {**WHOLEBODY, "input_size": [64, 64]})
    weights(folder, "mesh", {"input_size": 64})
    classifier = weights(folder, "imagenet", {"input_size": 64}, num_classes=3)
    for name, source in (("finetune/wholebody", wholebody), ("pretrain", classifier)):
        target = folder / f"runs/sample/{name}/model.safetensors"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    classes = folder / "data/sample/imagenet/classes.json"
    classes.parent.mkdir(parents=True)
    classes.write_text(json.dumps({str(place): [f"n{place}", f"class {place}"] for place in range(3)}))
    state = tcformer.create_model("tcformer_nano", "imagenet", num_classes=3).state_dict()
    torch.save({"model": state}, folder / "tcformer-authors.pth")


def make_data(folder: Path, samples: Path) -> None:
    photo = Image.effect_noise((64, 48), 80).convert("RGB")
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "a.jpg", "b.jpg", "picture.png", "photos/one.jpg", "photos/two.jpg"):
        photo.save(folder / name)
    video = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for shade in (50, 200):
        video.write(np.full((48, 64, 3), shade, np.uint8))
    video.release()
    (folder / "boxes.json").write_text("[[10, 5, 30, 40]]")

    coco, wflw = samples / "coco_wholebody", samples / "wflw"
    annotations = coco / "annotations/coco_wholebody_val_v1.0.json"
    content = json.loads(annotations.read_text())
    first = min(record["id"] for record in content["images"])
    few = {
        name: [r for r in content[name] if r.get("image_id", r["id"]) == first] for name in ("images", "annotations")
    }
    (folder / "val2017").mkdir()
    (image,) = few["images"]
    shutil.copy(coco / "val2017" / image["file_name"], folder / "val2017")
    (folder / "person_keypoints_val2017.json").write_text(json.dumps({**content, **few}))
    boxes = [{**record, "score": 0.9, "category_id": 1} for record in few["annotations"][:1]]
    (folder / "detections.json").write_text(json.dumps(boxes))
    shutil.copy(annotations, folder)
    shutil.copy(coco / "results/example_pred.json", folder / "results.json")

    faces = folder / "list_98pt_rect_attr_test.txt"
    shutil.copy(wflw / f"WFLW_annotations/list_98pt_rect_attr_train_test/{faces.name}", faces)
    shutil.copytree(wflw / "WFLW_images", folder / "WFLW_images")
    points = load_faces(faces).points.reshape(-1, 196)
    records = [{"index": index, "points": row.tolist()} for index, row in enumerate(points)]
    (folder / "predictions.json").write_text(json.dumps(records))
    write_smpl_body(folder / "body")

    joints = np.ones((1, 24, 4))
    joints[..., :3] = np.random.default_rng(0).random((1, 24, 3))
    few_bodies = {"imgname": np.array(["a.jpg"]), "center": np.full((1, 2), 50.0), "scale": np.ones(1), "S": joints}
    np.savez(folder / "h36m_valid_protocol2.npz", **few_bodies)
    (folder / "joints.json").write_text(json.dumps([{"index": 0, "joints": joints[0, :17, :3].tolist()}]))
    pose, shape = np.zeros((1, 72)), np.zeros((1, 10))
    posed = {name: few_bodies[name] for name in ("imgname", "center", "scale")}
    np.savez(folder / "3dpw_test.npz", **posed, pose=pose, shape=shape, gender=np.array(["m"]))
    (folder / "bodies.json").write_text(
        json.dumps([{"index": 0, "pose": pose[0].tolist(), "shape": shape[0].tolist()}])
    )
    (folder / "imagenet/val/n0").mkdir(parents=True)
    photo.save(folder / "imagenet/val/n0/a.JPEG")
    (folder / "classes.json").write_text(json.dumps([{"image": "a.JPEG", "classes": [0]}]))
    labels = own_points.content()
    own_points.write(folder / "labels", "val.json", labels)
    cats = [{**record, "score": 0.9} for record in labels["annotations"] if "keypoints" in record]
    (folder / "cats.json").write_text(json.dumps(cats))


@pytest.fixture(scope="module")
def files(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages name."""
    folder = tmp_path_factory.mktemp("documented")
    make_weights(folder)
    make_data(folder, samples)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_commands_run_as_written(page: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr("tcformer.inference.PersonDetector", OnePerson)
    monkeypatch.setattr(export, "export_onnx", small_onnx)
    lines = [shlex.split(line)[1:] for line in commands(ROOT / page) if line.startswith("tcformer ")]
    lines = [words for words in lines if words[0] in RUN]
    assert lines
    for words in lines:
        shutil.rmtree("out", ignore_errors=True)
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        assert done.exception is None and not done.return_value, (words, done.output, done.exception)
        assert done.output
        if words[0] == "predict":
            assert json.loads(Path("out/predictions.json").read_text()), words
        if words[0] in ("predict", "tokens"):
            assert [path for path in Path("out").iterdir() if path.suffix in (".jpg", ".png", ".mp4")], words
    made = {words[2] for words in lines if words[0] in ("convert", "export")}
    assert [name for name in made if not Path(name).stat().st_size] == []


def test_python_blocks_run_as_written(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs/predict.md", "python"):
        exec(compile(block, "docs/predict.md", "exec"), names)
    assert names["result"].points.shape == (1, 133, 2) and names["result"].scores.shape == (1, 133)
    assert [len(result) for result in names["results"]] == [1, 1]
    assert names["picture"].dtype == names["sheet"].dtype == np.uint8

"""The command `tcformer` as a person uses it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import tcformer
from pipelines.prediction import predict
from stages.cli import cli, run
from tcformer.errors import UserError
from tcformer.inference.pictures import as_picture
from tests.imports import ROOT
from tests.tcformer.inference.test_predictor import WHOLEBODY, weights

SMALL = {**WHOLEBODY, "input_size": [64, 48]}


def call(*arguments: object, status: int = 0) -> str:
    """Run a command in this process and return what it printed."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    assert (result.return_value or 0) == status, result.output
    return result.output


def records(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "predictions.json").read_text())
    return found


@pytest.fixture
def photos(samples: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    for file in (samples / "persons").glob("*.*g"):
        shutil.copy(file, folder)
    return folder


def test_a_folder_gives_results_and_pictures(photos: Path, tmp_path: Path) -> None:
    (photos / "text.jpg").write_text("no picture")
    (photos / "notes.txt").write_text("passed over")
    path, out = weights(tmp_path, "wholebody", SMALL), tmp_path / "out"
    printed = call("predict", photos, "-w", path, "-o", out, "--tokens", status=1)
    assert "skipped" in printed and "text.jpg" in printed
    assert "whole-body keypoints: 2 in 2 files, 1 skipped" in printed
    found = records(out)
    assert [record["file_name"] for record in found] == ["astronaut.png", "grace_hopper.jpg"]
    assert [record["image_id"] for record in found] == [1, 2]
    assert len(found[0]["keypoints"]) == 51 and len(found[0]["face_kpts"]) == 204  # type: ignore[arg-type]
    names = {"astronaut.jpg", "astronaut-tokens.png", "grace_hopper.jpg", "grace_hopper-tokens.png"}
    assert {file.name for file in out.iterdir()} == {*names, "predictions.json"}
    assert cv2.imread(str(out / "grace_hopper.jpg")).shape == (600, 512, 3)


def test_pictures_of_one_name_are_all_kept_and_inputs_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "grace_hopper.jpg", photos / "astronaut.jpg")
    before = (photos / "grace_hopper.jpg").read_bytes()
    path = weights(tmp_path, "imagenet", {"input_size": 64}, num_classes=3)
    call("predict", photos / "*.*g", "-w", path, "-o", photos)
    assert (photos / "grace_hopper.jpg").read_bytes() == before
    assert {"astronaut-2.jpg", "astronaut-3.jpg", "grace_hopper-2.jpg"} <= {file.name for file in photos.iterdir()}


def test_results_in_annotated_boxes_can_be_scored(samples: Path, tmp_path: Path) -> None:
    persons = samples / "coco_wholebody"
    annotations = persons / "annotations/coco_wholebody_val_v1.0.json"
    path, out = weights(tmp_path, "wholebody", SMALL), tmp_path / "out"
    options = ("--boxes", annotations, "--no-pictures", "-o", out)
    call("predict", persons / "val2017", "-w", path, *options)
    assert [file.name for file in out.iterdir()] == ["predictions.json"]
    assert records(out)[0]["image_id"] == 785
    printed = call("score", "wholebody", out / "predictions.json", "--annotations", annotations)
    assert "mean OKS" in printed and "| wholebody |" in printed


def test_the_golden_results_get_the_official_scores(samples: Path) -> None:
    persons = samples / "coco_wholebody"
    golden = json.loads((persons / "golden_metrics.json").read_text())["with_part_scores"]
    results, annotations = persons / "results/example_pred.json", persons / "annotations/coco_wholebody_val_v1.0.json"
    measures = json.loads(call("score", "wholebody", results, "--annotations", annotations, "--json"))
    for part in ("body", "foot", "face", "wholebody"):
        assert measures[part]["AP"] == pytest.approx(golden[part]["AP"], abs=1e-6)


def test_faces_are_predicted_by_their_list_and_scored(samples: Path, tmp_path: Path) -> None:
    faces = samples / "wflw"
    annotations = faces / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    path, out = weights(tmp_path, "face", {**SMALL, "input_size": [64, 64]}), tmp_path / "out"
    pictures = faces / "WFLW_images/**/*.jpg"
    call("predict", pictures, "-w", path, "--boxes", annotations, "-o", out)
    printed = call("score", "face", out / "predictions.json", "--annotations", annotations)
    assert "NME" in printed and "| full |" in printed

    exact = tmp_path / "exact.txt"
    shutil.copy(annotations, exact)  # its lines begin with the 196 numbers
    measures = json.loads(call("score", "face", exact, "--annotations", annotations, "--json"))
    assert measures["full"]["NME"] == 0
    exact.write_text("\n".join(exact.read_text().splitlines()[1:]))
    with pytest.raises(UserError, match="have no result"):
        call("score", "face", exact, "--annotations", annotations)


def test_a_video_becomes_a_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for shade in range(0, 250, 50):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    path, out = weights(tmp_path, "wholebody", SMALL), tmp_path / "out"
    call("predict", tmp_path / "clip.mp4", "-w", path, "-o", out, "--tokens", "--batch", 2)
    assert [record["frame"] for record in records(out)] == [0, 1, 2, 3, 4]
    for name in ("clip.mp4", "clip-tokens.mp4"):
        capture = cv2.VideoCapture(str(out / name))
        assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5 and capture.get(cv2.CAP_PROP_FPS) == 10
    assert int(cv2.VideoCapture(str(out / "clip.mp4")).get(cv2.CAP_PROP_FRAME_WIDTH)) == 64


def test_tokens_of_any_network(photos: Path, tmp_path: Path) -> None:
    path = weights(tmp_path, "features", {"input_size": [64, 64]})
    call("tokens", photos / "astronaut.png", "-w", path, "-o", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["astronaut-tokens.png"]
    with pytest.raises(UserError, match="tcformer tokens"):
        call("predict", photos / "astronaut.png", "-w", path, "-o", tmp_path / "out")


def test_mistakes_end_in_one_sentence(photos: Path, tmp_path: Path) -> None:
    path, picture, out = weights(tmp_path, "wholebody", SMALL), photos / "astronaut.png", tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "boxes.json").write_text('{"other.jpg": [[1, 2, 3, 4]]}')
    for arguments, message in [
        ((tmp_path / "empty", "-w", path), "no picture and no video"),
        ((tmp_path / "none.jpg", "-w", path), "no such file"),
        ((tmp_path / "text.jpg", "-w", path), "cannot be decoded"),
        ((tmp_path / "text.mp4", "-w", path), "cannot be opened"),
        ((picture, "-w", tmp_path / "text.jpg"), "is not a weights file"),
        ((picture, "-w", path, "--boxes", tmp_path / "boxes.json"), r"has no box.*other\.jpg"),
        ((picture, "-w", path, "--device", "nonsense"), "device nonsense"),
        ((picture, "-w", path, "--size", 30, 30), "multiples of 4"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            call("predict", *arguments, "-o", out)
        assert "\n" not in str(error.value)
    features = weights(tmp_path, "features", {"input_size": [64, 64]})
    with pytest.raises(UserError, match=r"input size: expected .* 29 to 8192 pixels, found \(0, 0\)"):
        call("tokens", picture, "-w", features, "--size", 0, 0, "-o", out)
    with pytest.raises(UserError, match="is a file"):
        call("predict", picture, "-w", path, "-o", tmp_path / "text.jpg")
    face = weights(tmp_path, "face", {**SMALL, "input_size": [64, 64]})
    with pytest.raises(UserError, match="it finds people"):
        call("predict", picture, "-w", face, "--detector", "torchvision", "-o", out)


def test_no_person_and_empty_boxes(photos: Path, tmp_path: Path) -> None:
    path, picture, out = weights(tmp_path, "wholebody", SMALL), photos / "astronaut.png", tmp_path / "out"
    file = tmp_path / "boxes.json"
    for content in (
        "[]",
        "{}",
        '{"astronaut.png": []}',
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": []}',
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=r"contains no boxes|has no box for any of the 1 pictures") as error:
            call("predict", picture, "-w", path, "--boxes", file, "-o", out)
        assert "\n" not in str(error.value) and not out.exists()
    file.write_text('{"astronaut.png": [], "grace_hopper.jpg": [[10, 20, 200, 300]]}')
    assert "2 files" in call("predict", photos, "-w", path, "--boxes", file, "-o", out, "--tokens")
    assert [record["file_name"] for record in records(out)] == ["grace_hopper.jpg"]
    assert cv2.imread(str(out / "astronaut.jpg")) is not None, "drawn without a person"


def test_pictures_share_batches_unless_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [(Path(str(side)), as_picture(np.zeros((side, 8, 3), np.uint8)), None) for side in (2, 8, 2, 2, 2)]
    names = [[str(path) for path, *_ in group] for group in predict._batches(pictures, 3)]
    assert names == [["2", "8", "2"], ["2", "2"]]
    monkeypatch.setattr(predict, "_PIXELS_AT_ONCE", 64)
    assert [len(group) for group in predict._batches(pictures, 3)] == [2, 3]


def test_a_picture_of_twelve_thousand_pixels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.jpg"), np.full((300, 12_000, 3), 90, np.uint8))
    path, out = weights(tmp_path, "wholebody", SMALL), tmp_path / "out"
    call("predict", tmp_path / "wide.jpg", "-w", path, "-o", out)
    [record] = records(out)
    assert record["box"] == [0, 0, 12_000, 300]
    assert cv2.imread(str(out / "wide.jpg")).shape == (40, 1600, 3)


def test_no_tokens_of_a_classifier_of_timm(photos: Path, tmp_path: Path) -> None:
    tcformer.save_model(tcformer.create_model("timm/resnet18", num_classes=3), tmp_path / "a.safetensors")
    arguments = (photos / "astronaut.png", "-w", tmp_path / "a.safetensors", "--size", 64, 64, "-o", tmp_path / "out")
    assert "in 1 file" in call("predict", *arguments)
    with pytest.raises(UserError, match=r"no tokens: .* classifiers of timm"):
        call("tokens", *arguments)


def test_networks_that_predict_nothing_for_pictures(photos: Path, tmp_path: Path) -> None:
    arguments = (photos / "astronaut.png", "-w", tmp_path / "a.safetensors", "-o", tmp_path / "out")
    tcformer.save_model(tcformer.create_model("tcformer_nano", num_classes=0), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="tcformer tokens"):
        call("predict", *arguments, "--size", 64, 64)
    call("tokens", *arguments, "--size", 64, 64)
    tcformer.save_model(tcformer.create_model("tcformer_nano", in_chans=1), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="images of 1 channels, but pictures have 3"):
        call("predict", *arguments)


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As in `tcformer --help | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "stages.cli", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_info_and_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(
        {"model": tcformer.create_model("tcformer_nano", "imagenet", num_classes=3).state_dict()}, tmp_path / "a.pth"
    )
    assert "tcformer_nano for imagenet" in call("convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    about = json.loads(call("info", tmp_path / "a.safetensors", "--json"))
    assert about["network"]["num_classes"] == 3 and about["metadata"]["converted_from"].startswith("a.pth")
    assert about["parameters"] == tcformer.count_parameters(tcformer.load_model(tmp_path / "a.safetensors"))
    printed = call("info", weights(tmp_path, "wholebody", SMALL))
    assert re.search(r"input_size +\[64, 48\]", printed) and re.search(r"task +wholebody", printed)
    tcformer.save_model(
        tcformer.load_model(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", {"author": "\x1b[2J"}
    )
    assert r"\x1b[2J" in call("info", tmp_path / "b.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "tcformer_nano" in call("info", "~/a.safetensors")
    with pytest.raises(UserError, match=r"ends with \.safetensors"):
        call("convert", tmp_path / "a.pth", tmp_path / "a.pt")
    with pytest.raises(UserError, match="--size"):
        call("export", tmp_path / "a.safetensors", tmp_path / "a.onnx")


def test_experiments_are_passed_on() -> None:
    result = CliRunner().invoke(cli, ["experiments", "list"])
    assert result.exit_code == 0 and "wholebody-tcformer" in result.output


def test_compare_is_that_of_the_experiments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines.paper import dvc_experiments

    monkeypatch.setattr(dvc_experiments, "all_states", lambda root: [])
    assert "# TCFormer, experiments side by side" in call("compare")
    call("compare", "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!")
    with pytest.raises(UserError, match="experiment 'none'"):
        call("compare", "none")


def test_a_usage_error_has_the_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tcformer", "predict", "photo.jpg"])
    assert run() == 2
    assert "Missing option" in capsys.readouterr().err


@pytest.mark.slow
def test_a_prediction_imports_nothing_that_takes_seconds(photos: Path, tmp_path: Path) -> None:
    """Of the pipeline's tools, torchvision and PyTorch's compiler: the first result must come within five seconds."""
    program = """
import sys, time
sys.argv = ["tcformer", *sys.argv[1:]]
from stages.cli import run
assert run() == 0
print([name for name in ("ray", "mlflow", "deepspeed", "dvc", "torchvision", "timm", "pydantic", "numba", "scipy",
       "torch._dynamo", "sympy")
       if name in sys.modules])
print(time.process_time())
"""
    path = weights(tmp_path, "wholebody", SMALL)
    command = [sys.executable, "-c", program, "predict", str(photos / "astronaut.png"), "-w", str(path)]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "-o", str(tmp_path / "out")], cwd=ROOT, env=one, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, seconds = done.stdout.splitlines()[-2:]
    assert imported == "[]"
    assert float(seconds) < 5, "seconds of CPU time, which other programs of the machine lengthen little"


def test_commands_of_the_page_are_accepted() -> None:
    """Every option exists and accepts its value. The commands are parsed and do not run."""
    page = (ROOT / "docs/predict.md").read_text(encoding="utf-8")
    commands = re.findall(r"^tcformer (.*?)(?:  #.*)?$", page, re.MULTILINE)
    assert len(commands) >= 10
    for command in commands:
        name, *arguments = shlex.split(command)
        if name != "experiments":
            context = cli.commands[name].make_context(name, arguments)
            assert context.params

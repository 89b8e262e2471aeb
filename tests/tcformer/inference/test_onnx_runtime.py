"""Predictions in ONNX Runtime: chosen by measurement, refused if the file is of something else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import tcformer
from stages.cli import cli
from tcformer.errors import UserError
from tcformer.inference import onnx_runtime
from tcformer.models.export import export_onnx, weights_digest
from tests.tcformer.inference.test_predictor import WHOLEBODY, weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (64, 64)
IMAGE = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)


@pytest.fixture
def face(tmp_path: Path) -> Path:
    return weights(tmp_path, "face", {**WHOLEBODY, "input_size": list(SIZE)})


def simple_file(path: Path, source: Path, size: tuple[int, int] = SIZE, points: int = 98, **about: object) -> Path:
    """A file that says that it is the network of `source`, but averages blocks of the image instead."""
    values = np.random.default_rng(0).normal(size=(points, 3, 4, 4)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["images", "w"], ["heat_maps"], strides=[4, 4])
    shapes = {"images": ["batch", 3, *size], "heat_maps": ["batch", points, size[0] // 4, size[1] // 4]}
    graph = onnx.helper.make_graph(
        [node],
        "simple",
        *([onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)] for name, shape in shapes.items()),
        [onnx.numpy_helper.from_array(values, "w")],
    )
    opset = onnx.helper.make_opsetid("", 20)
    proto = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    model = tcformer.load_model(source)
    found = {"config": model.config, "weights": weights_digest(model), "image_size": list(size), **about}
    onnx.helper.set_model_props(proto, {"tcformer": json.dumps(found)})
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("faster", ["onnx", "torch"])
def test_what_is_faster_is_used(faster: str, face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.002, 0.004] if faster == "onnx" else [0.004, 0.002]
    monkeypatch.setattr(onnx_runtime, "seconds_of_each", lambda functions, images: seconds)
    predictor = tcformer.Predictor.load(face, device="cpu", onnx=simple_file(tmp_path / "face.onnx", face))
    assert predictor.runtime == ""
    result, plain = predictor(IMAGE), tcformer.Predictor.load(face, device="cpu")(IMAGE)
    assert predictor.runtime == faster
    assert (result.points == plain.points).all() == (faster == "torch")
    [note] = predictor.notes
    assert note.startswith("ONNX Runtime takes") and note.endswith("is used")
    predictor(IMAGE)
    assert predictor.notes == [note], "measured once"
    if faster == "onnx":
        assert result.tokens == [[]]
        with pytest.raises(UserError, match="no tokens: ONNX Runtime"):
            predictor.draw_tokens(result)
        assert predictor.draw(IMAGE, result).shape == IMAGE.shape
    else:
        assert len(result.tokens[0]) == 4


def test_both_are_timed() -> None:
    calls: list[str] = []
    seconds = onnx_runtime.seconds_of_each([lambda _: calls.append("a"), lambda _: calls.append("b")], None)  # type: ignore[arg-type]
    assert calls == ["a", "b"] * 4 and len(seconds) == 2


def test_files_of_something_else_are_refused(face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "face.onnx"
    for about, message in (
        ({"weights": "0" * 64}, "was exported from other weights"),
        ({"config": {}}, "was exported from other weights"),
        ({"image_size": [32, 32]}, "expected images of 64 x 64 pixels, found 32 x 32"),
    ):
        with pytest.raises(UserError, match=message):
            tcformer.Predictor.load(face, device="cpu", onnx=simple_file(path, face, **about))
    path.write_bytes(b"no ONNX")
    with pytest.raises(UserError, match=r"cannot be read as an ONNX file .*tcformer export"):
        tcformer.Predictor.load(face, device="cpu", onnx=path)
    with pytest.raises(UserError, match="no such file"):
        tcformer.Predictor.load(face, device="cpu", onnx=tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="extra `export`"):
        tcformer.Predictor.load(face, device="cpu", onnx=path)


def test_a_network_of_tokens_alone_is_refused(face: Path, tmp_path: Path) -> None:
    tokens = weights(tmp_path, "features")
    with pytest.raises(UserError, match=r"gives no tokens, and .*features\.safetensors predicts nothing else"):
        tcformer.Predictor.load(tokens, device="cpu", onnx=simple_file(tmp_path / "face.onnx", face))


def test_the_command(face: Path, samples: Path, tmp_path: Path) -> None:
    path, picture = simple_file(tmp_path / "face.onnx", face), samples / "persons/astronaut.png"
    command = ["predict", str(picture), "-w", str(face), "--device", "cpu", "--onnx", str(path)]
    done = CliRunner().invoke(cli, [*command, "-o", str(tmp_path / "out")], standalone_mode=False)
    assert done.exception is None, done.output
    assert "note: ONNX Runtime takes" in done.output and (tmp_path / "out/astronaut.jpg").is_file()
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    of_video = [command[0], str(tmp_path / "clip.mp4"), *command[2:], "-o", str(tmp_path / "out")]
    assert "note: ONNX Runtime takes" in CliRunner().invoke(cli, of_video, standalone_mode=False).output
    done = CliRunner().invoke(cli, [*command, "--tokens", "-o", str(tmp_path / "out")], standalone_mode=False)
    assert isinstance(done.exception, UserError) and "gives no tokens" in str(done.exception)


@pytest.mark.slow
def test_an_exported_network_predicts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    # No clustering: its export takes half a minute, and test_export.py has it.
    options = {"token_reduction": "conv", "neck": "deconv"}
    face = weights(tmp_path, "face", {**WHOLEBODY, "input_size": list(SIZE)}, **options)
    monkeypatch.setattr(onnx_runtime, "seconds_of_each", lambda functions, images: [1, 2])
    export_onnx(tcformer.load_model(face), tmp_path / "face.onnx", SIZE)
    predictor = tcformer.Predictor.load(face, device="cpu", onnx=tmp_path / "face.onnx")
    expected = tcformer.Predictor.load(face, device="cpu")(IMAGE)
    np.testing.assert_allclose(predictor(IMAGE).points, expected.points, atol=0.05)
    assert predictor.runtime == "onnx"

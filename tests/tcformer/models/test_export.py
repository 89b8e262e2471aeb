from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import tcformer.models.export as export
from kernels import dpc_knn
from tcformer import create_model, save_model
from tcformer.errors import UserError
from tcformer.models import Network
from tcformer.models.export import (
    TOLERANCE,
    compare,
    export_onnx,
    export_program,
    main,
    random_images,
    relative_difference,
)
from tcformer.models.kernel_choice import use_kernels
from tcformer.models.options import TASKS

NANO = "tcformer_nano"
SIZE = (64, 48)
# Every task, token reduction and neck once; an odd image size, whose maps do not divide its grid.
CASES = [
    ("imagenet", {"num_classes": 7}, SIZE),
    ("wholebody", {"token_reduction": "local_ctm"}, SIZE),
    ("face", {"token_reduction": "ctm_topk", "neck": "deconv"}, SIZE),
    ("mesh", {}, (50, 33)),
    ("features", {"token_reduction": "conv"}, (50, 33)),
]


def nano(task: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return create_model(NANO, task, **options)


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        output = model(images)
    return [output] if isinstance(output, Tensor) else list(output)


def run(path: Path, images: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]


@pytest.fixture
def onnx() -> ModuleType:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    return pytest.importorskip("onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "options", "size"), CASES)
def test_files_give_the_networks_outputs(
    task: str, options: dict[str, Any], size: tuple[int, int], tmp_path: Path, onnx: ModuleType
) -> None:
    model, path = nano(task, **options), tmp_path / "new folder/model.onnx"
    assert export_onnx(model, path, size) <= TOLERANCE
    assert model.training
    if task == "imagenet":  # the check sees a file of another network
        with torch.no_grad():
            model.head.bias[3] += 0.01
            assert compare(model, path, size) > TOLERANCE
            model.head.bias[3] -= 0.01
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    model.eval()
    for batch in (1, 3):
        images = random_images(batch, image_size=size, seed=10 + batch)
        for own, expected in zip(run(path, images), outputs(model, images), strict=True):
            assert own.shape == expected.shape
            assert relative_difference(own, expected) <= TOLERANCE
    proto = onnx.load(str(path))
    assert {node.domain for node in proto.graph.node} == {""}  # no operators of anyone's own
    about = json.loads({p.key: p.value for p in proto.metadata_props}["tcformer"])
    assert (about["config"], about["image_size"]) == (model.config, list(size))


def test_the_outputs_of_every_task_have_names() -> None:
    assert set(export._OUTPUTS) == set(TASKS)


@pytest.mark.slow
def test_program_runs_without_our_operators() -> None:
    model = nano("wholebody", num_keypoints=3)
    program = export_program(model, SIZE)
    operators = {n.target for n in program.graph.nodes if n.op == "call_function"}
    assert {op.namespace for op in operators if isinstance(op, torch._ops.OpOverload)} == {"aten"}
    model.eval()
    for batch in (1, 5):
        images = random_images(batch, image_size=SIZE)
        with torch.no_grad():
            assert relative_difference(program.module()(images), model(images)) <= TOLERANCE


class Clusters(nn.Module):
    config: ClassVar = {"task": "imagenet", "variant": "clusters", "options": {}}

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([dpc_knn(images.flatten(2).mT, 16)[1], dpc_knn(images.flatten(2).mT, 5, k=2)[1]])


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
@pytest.mark.parametrize("features", ["lattice", "constant"])
def test_onnxruntime_breaks_ties_by_the_lower_index(features: str, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (3, 3, 8, 8), generator=g).float() if features == "lattice" else torch.ones(3, 3, 8, 8)
    path = tmp_path / "clusters.onnx"
    program = export._trace(Clusters(), (8, 8))  # type: ignore[arg-type]
    path.write_bytes(export._to_onnx(program, Clusters.config, (8, 8), export.OPSET))
    clusters = run(path, x)[0]
    for own, (count, k) in zip(clusters, [(16, 5), (5, 2)], strict=True):
        assert torch.equal(own, dpc_knn(x.flatten(2).mT, count, k, backend="reference")[1])
    # Features without a value make no sense, but also no crash.
    assert run(path, torch.full_like(x, float("nan")))[0].min() >= 0


@pytest.mark.usefixtures("onnx")
def test_another_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "compare", lambda *_: 2e-4)
    monkeypatch.setattr(export, "_trace", lambda *_: None)
    monkeypatch.setattr(export, "_to_onnx", lambda *_: b"other")
    for _ in range(2):
        with pytest.raises(UserError, match=r"not written, because .* differ by 2\.0e-04 of the largest value"):
            export_onnx(nano("imagenet"), tmp_path / "model.onnx", SIZE)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(export, "compare", lambda *_: float("nan"))
        with pytest.raises(UserError, match="by nan"):
            export_onnx(nano("imagenet"), tmp_path / "model.onnx", SIZE)
        monkeypatch.setattr(export, "compare", lambda *_: 2e-4)


@pytest.mark.usefixtures("onnx")
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_trace", lambda *_: None)
    monkeypatch.setattr(export, "_to_onnx", lambda *_: b"onnx")
    monkeypatch.setattr(export, "compare", lambda *_: 3e-7)
    weights, out = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    save_model(nano("imagenet"), weights)
    assert main([str(weights), str(out), "--size", "64", "48"]) == 0
    assert "3.0e-07" in capsys.readouterr().out
    assert out.read_bytes() == b"onnx"
    assert main([str(tmp_path / "missing"), str(out), "--size", "64", "48"]) == 2
    assert "no such weights file" in capsys.readouterr().err


def test_user_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = nano("imagenet"), tmp_path / "model.onnx"
    with pytest.raises(UserError, match="opset: expected 18 to 22, found 9"):
        export_onnx(model, path, SIZE, opset=9)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx"):
        export_onnx(model, path, SIZE)
    assert not path.exists()
    with pytest.raises(UserError, match="at least 29 x 29"):
        export_program(model, (28, 64))


@pytest.mark.usefixtures("onnx")
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("variant", ["tcformer_light", "tcformer"])
def test_classifiers_agree_on_sixteen_images(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path, size = create_model(variant, "imagenet"), tmp_path / "model.onnx", (224, 224)
    export_onnx(model, path, size)
    model.eval()
    images = random_images(16, image_size=size, seed=20)
    logits = torch.cat([run(path, some)[0] for some in images.split(3)])  # the last one alone
    with use_kernels("portable"):
        portable = outputs(model, images)[0]
    default = outputs(model, images)[0]
    exact = outputs(copy.deepcopy(model).double(), images.double())[0]
    for expected in (default, portable, exact):
        assert relative_difference(logits, expected) <= TOLERANCE
        assert torch.equal(logits.argmax(1), expected.argmax(1))

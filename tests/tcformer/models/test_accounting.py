from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tcformer
from tcformer import create_model
from tcformer.errors import UserError
from tcformer.models import export
from tcformer.models.accounting import DOCUMENT, Entry, build, count_flops, count_parameters, main, with_table
from tcformer.models.kernel_choice import use_kernels

IMAGENET, POSE = (224, 224), (256, 192)


def count(variant: str, task: str, size: tuple[int, int], **options: Any) -> tuple[int, Any]:
    model = build(Entry(variant, task, size, options=options))
    return count_parameters(model), count_flops(model, size)


@pytest.mark.parametrize(
    ("variant", "task", "options", "millions"),
    [
        ("tcformer_light", "imagenet", {}, 14.232),
        ("tcformer", "imagenet", {}, 25.595),
        ("tcformer_large", "imagenet", {}, 62.819),
        ("tcformer_light", "wholebody", {}, 16.419),
        ("tcformer", "wholebody", {}, 27.782),
        ("tcformer_large", "wholebody", {}, 65.006),
        ("timm/resnet50", "imagenet", {}, 25.557),
        ("timm/hrnet_w32", "wholebody", {}, 28.540),
        ("timm/hrnet_w48", "wholebody", {}, 63.601),
        ("timm/hrnet_w18", "face", {"neck": "all_maps"}, 9.663),
    ],
)
def test_parameters(variant: str, task: str, options: dict[str, Any], millions: float) -> None:
    assert round(count_parameters(build(Entry(variant, task, IMAGENET, options=options))) / 1e6, 3) == millions


@pytest.mark.slow
def test_a_tcformer_on_a_fixed_grid_is_pvt() -> None:
    ours = count("tcformer", "imagenet", IMAGENET, token_reduction="conv")
    assert ours == count("timm/pvt_v2_b2", "imagenet", IMAGENET)
    assert ours[0] == 25_362_856


@pytest.mark.parametrize(
    ("variant", "published"),
    [("resnet50", 4.1), ("resnet152", 11.6), ("deit_small_patch16_224", 4.6), ("swin_tiny_patch4_window7_224", 4.5)],
)
def test_published_multiplications(variant: str, published: float) -> None:
    assert count(f"timm/{variant}", "imagenet", IMAGENET)[1].total / 1e9 == pytest.approx(published, rel=0.02)


@pytest.mark.slow
def test_by_hand() -> None:
    cost = count("tcformer", "imagenet", IMAGENET)[1]
    distances = 3136**2 * 128 + 784**2 * 320 + 196**2 * 512
    assert cost.clustering == distances
    local = count("tcformer", "imagenet", IMAGENET, token_reduction="local_ctm")[1]
    assert local.clustering == 3136**2 // 16 * 128 + 784**2 // 4 * 320 + 196**2 * 512
    assert (local.layers, local.attention, local.maps) == (cost.layers, cost.attention, cost.maps)
    topk = count("tcformer", "imagenet", IMAGENET, token_reduction="ctm_topk")[1]
    assert topk.clustering == distances // 4
    # A head is one 1x1 convolution of the 64 x 48 map.
    all_points, hands = (count("tcformer_nano", "wholebody", POSE, keypoints=k)[1] for k in ("all", "hand"))
    assert all_points.layers - hands.layers == (133 - 42) * 48 * 64 * 48


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["reference", "portable", "torch"])
def test_counts_depend_on_shapes_alone(kernels: str) -> None:
    torch.manual_seed(0)
    model = create_model("tcformer_nano", "wholebody")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with use_kernels(kernels):
        assert count_flops(model, POSE) == count("tcformer_nano", "wholebody", POSE)[1]
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_small_images() -> None:
    with pytest.raises(UserError, match="at least 29 x 29"):
        count("tcformer_nano", "imagenet", (28, 64))


def test_table_needs_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "page.md"
    document.write_text("nothing")
    assert main(["--document", str(document)]) == 2
    assert "has no place for the table" in capsys.readouterr().err


@pytest.mark.slow
def test_table_of_the_page_is_the_one_that_the_command_writes() -> None:
    pytest.importorskip("timm")
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(document) == document, "run python -m tcformer.models.accounting"


def test_links_of_the_page_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (DOCUMENT.parent / link).exists()] == []


@pytest.mark.slow
def test_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = DOCUMENT.read_text(encoding="utf-8")
    # What the authors publish: their names, among other things that are no weights.
    released = create_model("tcformer", "imagenet").state_dict()
    torch.save({"model": {name.removeprefix("backbone."): t for name, t in released.items()}}, "tcformer-authors.pth")
    exported: list[tuple[Path, tuple[int, int]]] = []

    def export_onnx(model: nn.Module, path: str | Path, size: tuple[int, int], *_: object) -> float:
        """Stands in for the export, which takes half a minute and has its own tests."""
        model(torch.zeros(1, 3, *size))
        exported.append((Path(path), size))
        return 0.0

    monkeypatch.setattr(tcformer, "export_onnx", export_onnx, raising=False)
    monkeypatch.setattr(export, "export_onnx", export_onnx)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", document, re.DOTALL):
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert names["heat_maps"].shape == (1, 133, 64, 48)
    assert names["tokens"][3].features.shape == (1, 48, 128)
    assert names["tokens"][3].token_of_cell.shape == (1, 64 * 48)
    assert [tuple(m.shape[1:]) for m in names["maps"]] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    command = re.search(r"python -m tcformer\.models\.export (.*)", document)
    assert command is not None
    assert export.main(command[1].split()) == 0
    assert exported == [(Path("model.onnx"), (64, 64))] * 2

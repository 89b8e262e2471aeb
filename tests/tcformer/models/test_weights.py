from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tcformer import create_model, load_backbone, load_model, load_released_weights, save_model
from tcformer.errors import UserError
from tcformer.inference.recognise import load_any_weights
from tcformer.models import Network, load_initial, read_about
from tcformer.models.released_weights import from_released_name

ROOT = Path(__file__).resolve().parents[3]
METADATA = {"run": "7", "data": "abc", "recipe": "sample"}
SCRIPT = """
import sys, torch, tcformer
torch.manual_seed(3)
model = tcformer.create_model("tcformer_nano", "imagenet", num_classes=4)
tcformer.save_model(model, sys.argv[1], {"recipe": "sample", "run": "7", "data": "abc"})
"""


def nano(task: str = "imagenet", seed: int = 3, **options: int) -> Network:
    torch.manual_seed(seed)
    return create_model("tcformer_nano", task, **options)


def test_round_trip(tmp_path: Path) -> None:
    model, path = nano(num_classes=4), tmp_path / "new/folder/model.safetensors"
    save_model(model, path, METADATA)
    loaded = load_model(path)
    assert loaded.config == model.config
    for (name, a), (other, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    assert read_about(path) == (model.config, METADATA)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model, name = nano(num_classes=4), "~/new/model.safetensors"
    save_model(model, name, METADATA)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.safetensors"]
    assert load_model(name).config == read_about(name)[0] == model.config
    assert load_any_weights("~/model.pth").path == tmp_path / "model.pth"
    load_backbone(model, Path(name))
    assert load_initial(model, name) == load_initial(model, "~/model.pth") == "network"
    load_released_weights(model, "~/model.pth")


@pytest.mark.slow
def test_same_weights_same_bytes(tmp_path: Path) -> None:
    # In another process as well, where hash maps are ordered otherwise.
    save_model(nano(num_classes=4), tmp_path / "a", METADATA)
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "b")], cwd=ROOT, check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_backbone_of_another_task(tmp_path: Path) -> None:
    source, path = nano(num_classes=4), tmp_path / "pretrained"
    save_model(source, path)
    model = nano("wholebody", seed=4)
    head = model.keypoint_head.final_layer.weight.clone()
    load_backbone(model, path)
    for name, tensor in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor)
    assert torch.equal(model.keypoint_head.final_layer.weight, head)


def test_backbone_of_another_variant(tmp_path: Path) -> None:
    save_model(nano(), tmp_path / "nano")
    with pytest.raises(UserError, match=r"variant 'tcformer_light', found those of 'tcformer_nano'"):
        load_backbone(create_model("tcformer_light", "wholebody"), tmp_path / "nano")


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such weights file"):
        load_model(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match=r"tcformer\.save_model"):
        load_model(tmp_path / "text")
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(UserError, match=r"tcformer\.save_model"):
        load_model(tmp_path / "foreign")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    model, path = nano(num_classes=4), tmp_path / "broken"
    tensors = dict(model.state_dict())
    tensors["backbone.extra"] = tensors.pop("backbone.norm4.bias")
    tensors["head.bias"] = torch.zeros(9)
    save_file(tensors, path, {"tcformer": json.dumps({"config": model.config, "metadata": {}})})
    with pytest.raises(UserError) as error:
        load_model(path)
    for part in (
        "1 missing: backbone.norm4.bias",
        "1 unknown: backbone.extra",
        "1 of another shape: head.bias (9,) instead of (4,)",
        str(path),
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"1 missing: norm4\.bias"):
        load_backbone(nano("wholebody"), path)


def forge(path: Path, about: object, tensors: dict[str, Tensor] | None = None) -> Path:
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(nano(num_classes=4).state_dict() if tensors is None else tensors, path, {"tcformer": text})
    return path


CONFIG = {"variant": "tcformer_nano", "task": "imagenet", "options": {"num_classes": 4}}


@pytest.mark.parametrize(
    "about",
    [
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        {"config": CONFIG},
        {"config": None, "metadata": {}},
        {"config": {**CONFIG, "options": []}, "metadata": {}},
        {"config": {**CONFIG, "variant": 7}, "metadata": {}},
        {"config": {**CONFIG, "variant": "tcformer_huge"}, "metadata": {}},
        {"config": {**CONFIG, "variant": "timm/no/../such"}, "metadata": {}},
        {"config": {**CONFIG, "task": ["imagenet"]}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 10**12}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 10**400}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 900_000}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": "4"}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"variant": "tcformer"}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"patch_norm_eps": "small"}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 4, "local_parts": {"a": 1}}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 4, "drop_path_rate": None}}, "metadata": {}},
        {"config": {**CONFIG, "options": {"num_classes": 4, "x": 1}}, "metadata": {}},
        {"config": CONFIG, "metadata": {"options": 3}},
    ],
)
def test_odd_metadata_are_one_error(about: object, tmp_path: Path) -> None:
    path = forge(tmp_path / "a.safetensors", about)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))


def test_metadata_cannot_ask_for_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append(options) or create(name, **options))
    torch.manual_seed(0)
    source = create_model("timm/resnet18", "imagenet", num_classes=4)
    options = {**source.config["options"], "pretrained": True, "activation_checkpointing": True}
    about = {"config": {**source.config, "options": options}, "metadata": {}}
    load_model(forge(tmp_path / "a", about, dict(source.state_dict())))
    assert [each["pretrained"] for each in asked] == [False, False]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), st.lists, max_leaves=4),
    st.data(),
)
def test_any_argument_is_a_network_or_an_error(value: object, data: st.DataObject) -> None:
    names = ["num_classes", "keypoints", "num_keypoints", "neck", "token_reduction", "local_parts", "pretrained"]
    names += ["activation_checkpointing", "drop_path_rate", "patch_norm_eps", "variant", "task", "other"]
    chosen: dict[str, object] = {"variant": "tcformer_nano", "task": data.draw(st.sampled_from(["imagenet", "face"]))}
    chosen[data.draw(st.sampled_from(names))] = value
    with contextlib.suppress(UserError):
        create_model(**chosen)  # type: ignore[arg-type]


def test_released_names() -> None:
    assert from_released_name("backbone.patch_embed1.projection.bias") == "backbone.patch_embed1.proj.bias"
    assert from_released_name("block1.0.attn.q.weight") == "backbone.block1.0.attn.q.weight"
    for name in (
        "backbone.norm4.bias",
        "head.weight",
        "neck.lateral_convs.0.conv.bias",
        "keypoint_head.final_layer.weight",
    ):
        assert from_released_name(name) == name

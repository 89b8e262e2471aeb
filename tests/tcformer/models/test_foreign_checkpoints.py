"""Checkpoints as people have them: of other trainers, with settings beside the weights, damaged, hostile."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tcformer
from tcformer.errors import UserError
from tcformer.models import Network, load_backbone, load_initial, load_model, read_about, save_model
from tcformer.models.checkpoint_files import StoredTensor, read_checkpoint
from tests.tcformer.models.test_network import NANO

Say = list[str]


@pytest.fixture(scope="module")
def source() -> Network:
    return network(1)


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return tcformer.create_model(NANO, "wholebody", keypoints="foot")


def same(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def mmcv(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    """Classes with the names of mmcv's, Lightning's and a trainer's own; gone when a file is read."""
    made: dict[str, type] = {}
    for module, name, base in (
        ("mmcv.utils.config", "ConfigDict", dict),
        ("mmcv.utils.config", "Config", object),
        ("pytorch_lightning.utilities.parsing", "AttributeDict", dict),
        ("some_trainer.lists", "Milestones", list),
        ("some_trainer.lists", "Names", set),
    ):
        for end in (i for i, letter in enumerate(f"{module}.") if letter == "."):
            parent = module[:end]
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or ModuleType(parent))
        made[name] = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, made[name])
    yield made


SETTINGS: dict[str, Callable[[dict[str, type]], object]] = {
    "a NumPy number": lambda made: np.float64(0.57),
    "NumPy numbers": lambda made: [np.float32(1), np.int64(2), np.bool_(True), np.str_("a")],
    "an array": lambda made: {"sigmas": np.ones(17), "names": np.array(["a"]), "objects": np.array([None, 1], object)},
    "a dtype": lambda made: [np.dtype("float32"), np.float32],
    "paths": lambda made: argparse.Namespace(out=Path("runs"), data=PurePosixPath("/data")),
    "times": lambda made: (datetime.datetime(2022, 6, 27), datetime.timedelta(1)),
    "collections": lambda made: [collections.defaultdict(list, a=[1]), collections.deque([1]), {1}, bytearray(b"a")],
    "torch's own": lambda made: [torch.float16, torch.device("cpu"), torch.Size([1]), complex(1, 2)],
    "sparse": lambda made: torch.eye(2).to_sparse(),
    "mmcv's settings": lambda made: made["ConfigDict"](model=made["ConfigDict"](type="TCFormer", depths=[3, 4])),
    "objects": lambda made: [
        made["Config"](),
        made["AttributeDict"](lr=1e-3),
        made["Milestones"]([1]),
        made["Names"]([1]),
    ],
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_beside_the_weights_are_skipped(
    kind: str, protocol: int, zipped: bool, mmcv: dict[str, type], source: Network, tmp_path: Path
) -> None:
    path = tmp_path / "epoch_210.pth"
    content = {"meta": {"entry": SETTINGS[kind](mmcv)}, "state_dict": source.state_dict(), "optimizer": [torch.ones(3)]}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    for module in [name for name in sys.modules if name.startswith(("mmcv", "some_trainer", "pytorch_lightning"))]:
        del sys.modules[module]
    target = network(2)
    tcformer.load_released_weights(target, path)
    assert same(source, target)
    assert "mmcv" not in sys.modules


def renamed(weights: dict[str, Tensor], change: Callable[[str], str]) -> dict[str, Tensor]:
    return {change(name): tensor for name, tensor in weights.items()}


def other(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in weights.items()}


#: What a file contains, and what is said of it.
LAYOUTS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "EMA alone": (
        lambda w: {"state_dict_ema": w, "epoch": 3},
        "averaged weights in 'state_dict_ema' are used; it contains no",
    ),
    "EMA of YOLO": (lambda w: {"ema": {"state_dict": w}}, "averaged weights in 'ema.state_dict' are used"),
    "both": (
        lambda w: {"model": w, "model_ema": other(w)},
        "the weights in 'model' are used; not those in 'model_ema'",
    ),
    "compiled": (lambda w: {"model": renamed(w, "_orig_mod.{}".format)}, ""),
    "compiled and parallel": (lambda w: renamed(w, "module._orig_mod.{}".format), ""),
    "a part compiled": (lambda w: renamed(w, lambda n: n.replace("backbone.", "backbone._orig_mod.")), ""),
    "Lightning": (lambda w: {"state_dict": renamed(w, "model.{}".format), "hparams_name": "x"}, ""),
    "Lightning's net": (lambda w: {"state_dict": renamed(w, "net._orig_mod.{}".format)}, ""),
    "Lightning with a loss": (
        lambda w: {"state_dict": {**renamed(w, "model.{}".format), "loss.weight": torch.ones(133)}},
        "the weights model.* are used; not the tensors without this prefix",
    ),
    "Lightning with EMA": (
        lambda w: {"state_dict": {**renamed(w, "model.{}".format), **renamed(other(w), "model_ema.{}".format)}},
        "the weights model.* are used; not the tensors model_ema.*",
    ),
    "Lightning with EMA alone": (
        lambda w: {"state_dict": renamed(w, "ema_model.module.{}".format)},
        "the averaged weights ema_model.* are used; it contains no others",
    ),
    "torch's average": (lambda w: {"n_averaged": torch.tensor(3), **renamed(w, "module.{}".format)}, ""),
    "mmengine's average": (
        lambda w: {"ema_state_dict": {"steps": torch.tensor(3), **renamed(w, "module.{}".format)}},
        "averaged weights in 'ema_state_dict' are used",
    ),
    "FSDP": (lambda w: {"model": renamed(w, "_fsdp_wrapped_module.{}".format)}, ""),
    "parts checkpointed": (
        lambda w: renamed(w, lambda n: n.replace("block1.0.", "block1.0._checkpoint_wrapped_module.")),
        "",
    ),
    "parameters": (lambda w: {"model": {n: nn.Parameter(t) for n, t in w.items()}}, ""),
    "half": (lambda w: {"model": {n: t.to(torch.bfloat16).clone() for n, t in w.items()}}, ""),
}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin", ".pth.tar", ".weights", ""])
def test_any_suffix(suffix: str, source: Network, tmp_path: Path) -> None:
    torch.save({"state_dict": source.state_dict()}, tmp_path / f"last{suffix}")
    save_model(source, tmp_path / f"ours{suffix}")
    for name in ("last", "ours"):
        target = network(2)
        assert load_initial(target, tmp_path / f"{name}{suffix}") == "network"
        assert same(source, target)


def test_safetensors_of_other_programs(source: Network, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tcformer.inference import load_any_weights

    path = tmp_path / "model.safetensors"
    for names, metadata in (("{}", None), ("model.{}", {"format": "pt"})):
        save_file(renamed(source.state_dict(), names.format), path, metadata)
        target = network(2)
        assert load_initial(target, path) == "network" and same(source, target)
        assert same(load_any_weights(path).model, source)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model\.safetensors: is not a weights file"):
        load_initial(target, path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_trainers(layout: str, source: Network, tmp_path: Path) -> None:
    make, expected = LAYOUTS[layout]
    weights = source.state_dict()
    torch.save(make(weights), tmp_path / "last.ckpt")
    for load in (tcformer.load_released_weights, load_backbone, load_initial):
        said: Say = []
        target = network(2)
        load(target, tmp_path / "last.ckpt", say=said.append)  # type: ignore[operator]
        close = {"rtol": 1e-2, "atol": 1e-2} if layout == "half" else {"rtol": 0, "atol": 0}
        for name, tensor in target.backbone.state_dict().items():
            torch.testing.assert_close(tensor, weights[f"backbone.{name}"], **close)
        assert expected in " ".join(said) if expected else not said
    if expected:
        with pytest.warns(UserWarning, match="are used"):
            tcformer.load_released_weights(target, make(weights))


def test_two_networks_with_the_same_names_are_refused(source: Network) -> None:
    weights = source.state_dict()
    with pytest.raises(UserError, match=r"two tensors are called backbone\..*; save one of them"):
        tcformer.load_released_weights(network(2), {**weights, **renamed(weights, "module.{}".format)})


def test_the_network_of_mmpose_is_loaded_exactly(source: Network, tmp_path: Path) -> None:
    """mmpose 0.x: the names of its TCFormer, and eps 1e-6 in the LayerNorm of the patch embedding."""
    torch.manual_seed(0)
    images = 1e-2 * torch.randn(1, 3, 64, 64)  # flat patches, in which eps matters
    truth = network(2).eval()
    truth.load_state_dict(source.state_dict())
    truth.backbone.patch_embed1.norm.eps = 1e-6
    names = renamed(source.state_dict(), lambda name: name.replace("patch_embed1.proj.", "patch_embed1.projection."))
    content = {"meta": {"mmpose_version": "0.27.0", "time": "x"}, "state_dict": names, "optimizer": None}
    torch.save(content, tmp_path / "zoo.pth", _use_new_zipfile_serialization=False)
    said: Say = []
    loaded = network(2).eval()
    tcformer.load_released_weights(loaded, tmp_path / "zoo.pth", say=said.append)
    assert "has the names of mmpose's TCFormer, whose first LayerNorm has eps 1e-06" in said[0]
    with torch.no_grad():
        assert torch.equal(loaded(images), truth(images))
        loaded.backbone.patch_embed1.norm.eps = 1e-5
        assert not torch.equal(loaded(images), truth(images)), "the test can tell"
        loaded.backbone.patch_embed1.norm.eps = 1e-6
    # It stays so in files of this project, and for networks of other tasks that start from them.
    save_model(loaded, tmp_path / "ours.safetensors")
    assert read_about(tmp_path / "ours.safetensors")[0]["options"]["patch_norm_eps"] == 1e-6
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "ours.safetensors").eval()(images), truth(images))
    classifier = tcformer.create_model(NANO, "imagenet", num_classes=3)
    assert "patch_norm_eps" not in classifier.config["options"]
    load_backbone(classifier, tmp_path / "ours.safetensors")
    assert classifier.backbone.patch_embed1.norm.eps == classifier.config["options"]["patch_norm_eps"] == 1e-6
    # The authors' weights have their own.
    tcformer.load_released_weights(loaded, source.state_dict())
    assert loaded.backbone.patch_embed1.norm.eps == 1e-5 and "patch_norm_eps" not in loaded.config["options"]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.mkdir, "posix.mkdir"),
        (eval, "builtins.eval"),
        (np.save, "numpy.save"),
        (torch.load, "torch.serialization.load"),
        (getattr, "builtins.getattr"),
        (Path.touch, "pathlib.Path.touch|builtins.getattr"),
    ],
)
def test_code_is_refused_by_its_name(function: Any, name: str, zipped: bool, source: Network, tmp_path: Path) -> None:
    victim = tmp_path / "made"
    content = {"meta": Call(function, str(victim)), "state_dict": source.state_dict()}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"contains code: it names ({name}), .*nothing in the file was executed"):
        tcformer.load_released_weights(network(2), tmp_path / "a.pth")
    assert not victim.exists()


def test_whole_modules_and_programs_are_refused(source: Network, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"names torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_checkpoint(tmp_path / "module.pth")
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="is a TorchScript program"):
        read_checkpoint(tmp_path / "script.pt")


def test_what_the_file_contains_instead_of_weights_is_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "config": {"a": 1}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"contains no weights; .*found the entries 'epoch', 'config'"):
        tcformer.load_released_weights(network(2), tmp_path / "a.pth")


def odd_tensors() -> dict[str, Tensor]:
    shared = torch.arange(24.0)
    return {
        "transposed": shared.view(4, 6).T,
        "part": shared[3:7],
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "complex": torch.ones(2, dtype=torch.complex64),
        "uint16": torch.ones(3, dtype=torch.uint16),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "parameter": nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_kind_come_back(zipped: bool, tmp_path: Path) -> None:
    torch.save(odd_tensors(), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(tmp_path / "a.pth")
    assert isinstance(read, dict)
    for name, expected in odd_tensors().items():
        tensor = read[name].load()
        assert tensor.dtype == expected.dtype and tensor.shape == expected.shape
        assert torch.equal(*(each.float() if name == "float8" else each for each in (tensor, expected)))


def written(zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(
        {"state_dict": {"a": torch.ones(3), "b": torch.zeros(2, 2)}, "m": np.float64(1)},
        stream,
        _use_new_zipfile_serialization=zipped,
    )
    return stream.getvalue()


WRITTEN = {zipped: written(zipped) for zipped in (True, False)}


@pytest.mark.parametrize("zipped", [True, False])
@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data())
def test_damage_gives_tensors_or_one_error(
    zipped: bool, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(WRITTEN[zipped])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))]
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(damaged)
    try:
        read = read_checkpoint(path)
        weights = read.get("state_dict") if isinstance(read, dict) else None  # an entry may have become something else
        for value in weights.values() if isinstance(weights, dict) else ():
            if isinstance(value, StoredTensor):
                assert value.load().numel() < 100
    except UserError as error:
        assert str(path) in str(error)


def forged(shape: tuple[int, ...], strides: tuple[int, ...], count: int, size: int) -> bytes:
    """A zip checkpoint of a tensor that claims another size than its bytes have."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(thing, Storage) else None

    content = {
        "a": Call(torch._utils._rebuild_tensor_v2, Storage(), 0, shape, strides, False, collections.OrderedDict())
    }
    stream, archive = io.BytesIO(), io.BytesIO()
    Pickler(stream, protocol=2).dump(content)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/data.pkl", stream.getvalue())
        file.writestr("a/data/0", bytes(size))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("shape", "strides", "count", "size"),
    [
        ((2**30,), (1,), 2**30, 4),
        ((2**30,), (1,), 1, 4),
        ((8,), (1,), 8, 4),
        ((2,), (-1,), 2, 8),
        ((2,), (2**61,), 2, 8),
    ],
)
def test_tensors_beyond_their_bytes_are_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], count: int, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(forged((1,), (1,), 1, 4))
    assert tcformer.models.released_weights.read_released_weights(path).tensors["backbone.a"].tolist() == [0]
    path.write_bytes(forged(shape, strides, count, size))
    with pytest.raises(UserError, match=r"a\.pth: cannot be read"):
        tcformer.load_released_weights(network(2), path)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(UserError, match="is compressed"):
        read_checkpoint(path)

"""Read and write the weights of networks as safetensors files.

The same weights give the same bytes. All information other than tensors is one JSON string with one metadata key,
because the safetensors library writes several keys in an order that differs between runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tcformer.errors import UserError
from tcformer.files import atomic_write, user_path
from tcformer.models.factory import NOT_IN_CONFIG, create_model
from tcformer.models.networks import Network
from tcformer.models.patch_norm import DEFAULT_EPS, OPTION, set_patch_norm_eps
from tcformer.models.released_weights import ReleasedWeights, Say, is_safetensors, read_released_weights, warn
from tcformer.models.strict_loading import load_strictly
from tcformer.models.timm_backbone import TimmBackbone

_KEY = "tcformer"
_BACKBONE = "backbone."
_HEAD = "keypoint_head."
_RELEASED_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin")
_RELEASED_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of zip archives and pickles, in which torch.save writes
_MOST_OUTPUTS_UNSEEN = 100_000  # of a head that is built before it is compared with the tensors
#: Options that determine the number of a head's outputs, and the tensor that has so many.
_OUTPUTS = {"num_classes": "head.bias", "num_keypoints": "keypoint_head.final_layer.bias"}


def save_model(model: Network, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights and the config of a network to a safetensors file, from which `load_model` rebuilds it.

    Args:
        model: from `create_model`, on any device.
        path: the file. It is written atomically. Its folder is created if it does not exist.
        metadata: other strings to store in the file, such as the origin of the weights.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = save(tensors, file_metadata(model, metadata))
    with atomic_write(user_path(path)) as part:
        part.write_bytes(data)


def file_metadata(model: Network, metadata: dict[str, str] | None = None) -> dict[str, str]:
    """The metadata of the safetensors file that `save_model` writes; see there for the arguments."""
    about = {"config": model.config, "metadata": metadata or {}}
    return {_KEY: json.dumps(about, sort_keys=True)}


def read_about(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the config of the network and the other metadata of a file that `save_model` wrote.

    Raises:
        UserError: the file does not exist, or `save_model` did not write it.
    """
    _, about = _read(path, with_tensors=False)
    return about["config"], about["metadata"]


def load_model(path: str | Path) -> Network:
    """Rebuild the network that `save_model` wrote, on the CPU and in training mode.

    Raises:
        UserError: the file does not exist, `save_model` did not write it, or its weights do not fit its config.
    """
    tensors, about = _read(path)
    config = about["config"]
    for option, name in _OUTPUTS.items():  # before such a head is allocated
        count = config["options"].get(option)
        found = tensors[name].numel() if name in tensors else 0
        if isinstance(count, int) and count > _MOST_OUTPUTS_UNSEEN and count != found:
            raise UserError(
                f"{path}: says that {option} is {count!r:.40}, but has no tensor '{name}' of that size; train again, "
                "or copy the file again"
            )
    options = {name: value for name, value in config["options"].items() if name not in NOT_IN_CONFIG}
    try:
        model = create_model(config["variant"], config["task"], **options)
    except UserError as error:
        raise UserError(f"{path}: its network cannot be built: {error}") from error
    load_strictly(model, tensors, str(path))
    return model


def load_backbone(model: Network, path: str | Path, say: Say = warn) -> None:
    """Copy the weights of the backbone from a file of a network with the same backbone, for any task, into `model`.

    Args:
        model: from `create_model`.
        path: a file that `save_model` wrote, or a checkpoint of the authors or another trainer (see
            `load_released_weights`).
        say: see `load_released_weights`.

    Raises:
        UserError: the file does not exist, is of neither kind, or contains another backbone.
    """
    _load_backbone(model, _read_any(model, path, say), path)


def load_initial(model: Network, path: str | Path, say: Say = warn) -> str:
    """Copy initial weights into `model`: as much as the file has of the same network.

    That is the whole network; or all but the head, for a network that predicts other keypoints with the same neck; or
    the backbone.

    Args:
        model: from `create_model`.
        path: see `load_backbone`.
        say: see `load_released_weights`.

    Returns:
        What was copied: "network", "backbone and neck" or "backbone".

    Raises:
        UserError: see `load_backbone`.
    """
    weights, own = _read_any(model, path, say), model.state_dict()
    same_points = _same_points(model, path)
    if same_points and _shapes(weights.tensors) == _shapes(own):
        load_strictly(model, weights.tensors, str(path))
        set_patch_norm_eps(model, weights.patch_norm_eps)
        return "network"
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith(_HEAD)}
    new_head = {name: tensor for name, tensor in own.items() if name.startswith(_HEAD)}
    if new_head and len(kept) < len(weights.tensors) and _shapes({**kept, **new_head}) == _shapes(own):
        load_strictly(model, {**kept, **new_head}, str(path))
        set_patch_norm_eps(model, weights.patch_norm_eps)
        before = weights.tensors.get(f"{_HEAD}final_layer.bias")
        count = "" if before is None else f"{before.numel()} "
        say(f"the initial weights predict {count}other points: the head is new, backbone and neck are kept")
        return "backbone and neck"
    _load_backbone(model, weights, path)
    return "backbone"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _same_points(model: Network, path: str | Path) -> bool:
    """Whether the heat maps of a file are of the points of `model`, as far as file and model say."""
    own = model.config["options"].get("points")
    if own is None or is_released(user_path(path)):
        return True
    config = read_about(path)[0]
    other = config["options"].get("points")
    if other is None:  # a network of another task, or one of numbered points
        return bool(config["task"] == model.config["task"])
    return bool(other.get("names") == own["names"])


def _load_backbone(model: Network, weights: ReleasedWeights, path: str | Path) -> None:
    tensors = weights.tensors
    backbone = {name.removeprefix(_BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(_BACKBONE)}
    if isinstance(model.backbone, TimmBackbone):
        # The backbone of a classifier can have layers that the backbones of other networks lack.
        backbone = {name: backbone[name] for name in backbone.keys() & model.backbone.state_dict().keys()}
    load_strictly(model.backbone, backbone, f"{path}, the backbone")
    set_patch_norm_eps(model, weights.patch_norm_eps)


def _read_any(model: Network, path: str | Path, say: Say) -> ReleasedWeights:
    """Read a file of `save_model`, which must have the backbone of `model`, or of the authors or another trainer."""
    if is_released(user_path(path)):
        weights = read_released_weights(path)
        for choice in weights.choices:
            say(choice)
        return weights
    tensors, about = _read(path)
    if about["config"]["variant"] != model.config["variant"]:
        raise UserError(
            f"{path}: expected weights of the variant '{model.config['variant']}', found those of "
            f"'{about['config']['variant']}'; use the same variant for both"
        )
    return ReleasedWeights(tensors, about["config"]["options"].get(OPTION, DEFAULT_EPS), [])


def is_released(path: Path) -> bool:
    """Whether another program wrote a file, by its first bytes or else by its name.

    It is a file of torch.save, or a safetensors file without the metadata of `save_model`.
    """
    if is_safetensors(path):
        return not _is_ours(path)
    start = b""
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(9)
    return start.startswith(_RELEASED_BEGINNINGS) or path.suffix in _RELEASED_SUFFIXES


def _is_ours(path: Path) -> bool:
    """Whether a safetensors file has our metadata, or is damaged, so that our reader says what is wrong."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True


def _read(path: str | Path, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    path = user_path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; train a model first, or give the path of a weights file")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            _check_about(about)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: is not a weights file of tcformer.save_model ({error}); give the path of a weights file"
        ) from error
    return tensors, about


def _check_about(about: object) -> None:
    """Raise ValueError if the metadata of a file have another form than `save_model` gives them."""
    config, metadata = (about.get(name) for name in ("config", "metadata")) if isinstance(about, dict) else (None, None)
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are no texts by name")
    if not isinstance(config, dict) or not isinstance(config.get("options"), dict):
        raise ValueError("its metadata have no config with options")
    if not all(isinstance(config.get(name), str) for name in ("variant", "task")):
        raise ValueError("its config has no variant and task")
    if not isinstance(config["options"].get(OPTION, DEFAULT_EPS), float) or {"variant", "task"} & set(
        config["options"]
    ):
        raise ValueError("its options are not those of a network")

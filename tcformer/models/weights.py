"""Read and write the weights of networks as safetensors files.

The same weights give the same bytes. All information other than tensors is one JSON string with one metadata key,
because the safetensors library writes several keys in an order that differs between runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from tcformer.errors import UserError
from tcformer.files import atomic_write
from tcformer.models.factory import create_model
from tcformer.models.networks import Network
from tcformer.models.released_weights import read_released_weights
from tcformer.models.strict_loading import load_strictly
from tcformer.models.timm_backbone import TimmBackbone

_KEY = "tcformer"
_BACKBONE = "backbone."
_RELEASED_SUFFIXES = (".pth", ".pt", ".tar")


def save_model(model: Network, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights and the config of a network to a safetensors file, from which `load_model` rebuilds it.

    Args:
        model: from `create_model`, on any device.
        path: the file. It is written atomically. Its folder is created if it does not exist.
        metadata: other strings to store in the file, such as the origin of the weights.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {"config": model.config, "metadata": metadata or {}}
    data = save(tensors, {_KEY: json.dumps(about, sort_keys=True)})
    with atomic_write(Path(path)) as part:
        part.write_bytes(data)


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
    model = create_model(config["variant"], config["task"], **config["options"])
    load_strictly(model, tensors, str(path))
    return model


def load_backbone(model: Network, path: str | Path) -> None:
    """Copy the weights of the backbone from a file of a network with the same backbone, for any task, into `model`.

    Args:
        model: from `create_model`.
        path: a file that `save_model` wrote, or a checkpoint of the authors (see `load_released_weights`).

    Raises:
        UserError: the file does not exist, is of neither kind, or contains another backbone.
    """
    _load_backbone(model, _read_any(model, path), path)


def load_initial(model: Network, path: str | Path) -> str:
    """Copy initial weights into `model`: of the whole network if the file contains the same one, else of the backbone.

    Args:
        model: from `create_model`.
        path: see `load_backbone`.

    Returns:
        "network" or "backbone", whichever was copied.

    Raises:
        UserError: see `load_backbone`.
    """
    tensors, own = _read_any(model, path), model.state_dict()
    if {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in own.items()}:
        load_strictly(model, tensors, str(path))
        return "network"
    _load_backbone(model, tensors, path)
    return "backbone"


def _load_backbone(model: Network, tensors: dict[str, Tensor], path: str | Path) -> None:
    backbone = {name.removeprefix(_BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(_BACKBONE)}
    if isinstance(model.backbone, TimmBackbone):
        # The backbone of a classifier can have layers that the backbones of other networks lack.
        backbone = {name: backbone[name] for name in backbone.keys() & model.backbone.state_dict().keys()}
    load_strictly(model.backbone, backbone, f"{path}, the backbone")


def _read_any(model: Network, path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file of `save_model`, which must have the backbone of `model`, or of the authors."""
    if Path(path).suffix in _RELEASED_SUFFIXES:
        return read_released_weights(path)
    tensors, about = _read(path)
    if about["config"]["variant"] != model.config["variant"]:
        raise UserError(
            f"{path}: expected weights of the variant '{model.config['variant']}', found those of "
            f"'{about['config']['variant']}'; use the same variant for both"
        )
    return tensors


def _read(path: str | Path, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; train a model first, or give the path of a weights file")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: is not a weights file of tcformer.save_model ({error}); give the path of a weights file"
        ) from error
    return tensors, about

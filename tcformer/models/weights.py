"""Read and write network weights as safetensors files.

The same weights give the same bytes. Everything about a file that is not a tensor is one JSON string under
one metadata key, because the safetensors library writes several keys in an order that changes from run to
run.
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
    """Write a network's weights, with all that is needed to rebuild it, to a safetensors file.

    Args:
        model: from `create_model`, on any device.
        path: the file; it is complete or absent, never half written. Its folder is made if missing.
        metadata: further strings to keep in the file, such as where the weights come from.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {"config": model.config, "metadata": metadata or {}}
    data = save(tensors, {_KEY: json.dumps(about, sort_keys=True)})
    with atomic_write(Path(path)) as part:
        part.write_bytes(data)


def read_about(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The network's config and the further metadata of a file written by `save_model`.

    Raises:
        UserError: no such file, or not one of ours.
    """
    _, about = _read(path, with_tensors=False)
    return about["config"], about["metadata"]


def load_model(path: str | Path) -> Network:
    """Rebuild the network that `save_model` wrote, on the CPU, in training mode.

    Raises:
        UserError: no such file, not one of ours, or its weights do not fit its config.
    """
    tensors, about = _read(path)
    config = about["config"]
    model = create_model(config["variant"], config["task"], **config["options"])
    load_strictly(model, tensors, f"The file {path}")
    return model


def load_backbone(model: Network, path: str | Path) -> None:
    """Copy the backbone's weights from a file of the same backbone, whatever its task, into `model`.

    Args:
        path: a file that `save_model` wrote, or a checkpoint of the authors' (see `load_released_weights`).

    Raises:
        UserError: no such file, neither kind, or another backbone's.
    """
    _load_backbone(model, _read_any(model, path), path)


def load_initial(model: Network, path: str | Path) -> str:
    """Start `model` from a file: from the whole network in it if it is the same, else from its backbone.

    Args:
        path: see `load_backbone`.

    Returns:
        "network" or "backbone": what was copied.

    Raises:
        UserError: see `load_backbone`.
    """
    tensors, own = _read_any(model, path), model.state_dict()
    if {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in own.items()}:
        load_strictly(model, tensors, f"The file {path}")
        return "network"
    _load_backbone(model, tensors, path)
    return "backbone"


def _load_backbone(model: Network, tensors: dict[str, Tensor], path: str | Path) -> None:
    backbone = {name.removeprefix(_BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(_BACKBONE)}
    if isinstance(model.backbone, TimmBackbone):
        # A classifier's has layers that others do without.
        backbone = {name: backbone[name] for name in backbone.keys() & model.backbone.state_dict().keys()}
    load_strictly(model.backbone, backbone, f"The backbone in {path}")


def _read_any(model: Network, path: str | Path) -> dict[str, Tensor]:
    """Tensors of a file of ours, which must be of the model's backbone, or of the authors'."""
    if Path(path).suffix in _RELEASED_SUFFIXES:
        return read_released_weights(path)
    tensors, about = _read(path)
    if about["config"]["variant"] != model.config["variant"]:
        raise UserError(
            f"The weights in {path} belong to the model variant '{about['config']['variant']}', but the model "
            f"is '{model.config['variant']}'; use the same variant for both."
        )
    return tensors


def _read(path: str | Path, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"There is no weights file {path}; train a model first, or give the path of one.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"The file {path} is no weights file that tcformer.save_model wrote ({error}); give the path of one."
        ) from error
    return tensors, about

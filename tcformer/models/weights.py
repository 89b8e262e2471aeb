"""Read and write network weights as safetensors files.

The same weights give the same bytes. Everything about a file that is not a tensor is one JSON string under
one metadata key, because the safetensors library writes several keys in an order that changes from run to
run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tcformer.errors import UserError
from tcformer.models.factory import create_model
from tcformer.models.networks import Network

_KEY = "tcformer"
_BACKBONE = "backbone."
# The released classification checkpoints name the backbone's parameters without a prefix.
_CLASSIFIER_HEAD = "head."


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


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
    _load_strictly(model, tensors, path)
    return model


def load_backbone(model: Network, path: str | Path) -> None:
    """Copy the backbone's weights from a file of the same variant, whatever its task, into `model`.

    Raises:
        UserError: no such file, not one of ours, or another variant's.
    """
    tensors, about = _read(path)
    if about["config"]["variant"] != model.config["variant"]:
        raise UserError(
            f"The weights in {path} belong to the model variant '{about['config']['variant']}', but the model "
            f"is '{model.config['variant']}'; use the same variant for both."
        )
    backbone = {name.removeprefix(_BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(_BACKBONE)}
    _load_strictly(model.backbone, backbone, path)


def from_released_name(name: str) -> str:
    """Our name of a parameter of the authors' released checkpoints.

    Ours are theirs, except that the classifier's backbone has the prefix `backbone.` here as it has in their
    pose checkpoints.
    """
    if name.startswith((_BACKBONE, _CLASSIFIER_HEAD, "neck.", "keypoint_head.")):
        return name
    return _BACKBONE + name


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


def _load_strictly(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    misshapen = [name for name in expected if name in tensors and expected[name].shape != tensors[name].shape]
    problems = [
        f"{len(names)} {kind} (first: {names[0]})"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(
            f"The weights in {path} do not fit the model: tensors {', '.join(problems)}; use weights that were "
            "saved from the same variant and task."
        )
    module.load_state_dict(tensors)

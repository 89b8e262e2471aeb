"""Checkpoints of the authors' released code, read as data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from tcformer.errors import UserError
from tcformer.models.networks import Network
from tcformer.models.strict_loading import load_strictly

_BACKBONE: Final = "backbone."
# The classification checkpoints name the backbone's parameters without a prefix, the pose checkpoints with one.
_OTHERS: Final = ("head.", "neck.", "keypoint_head.")
_WRAPPER: Final = "module."  # of torch's DistributedDataParallel
#: Where a checkpoint keeps the weights beside optimiser state, arguments and the like.
_ENTRIES: Final = ("model", "state_dict")

Checkpoint = Mapping[str, Any]


def load_released_weights(model: Network, checkpoint: str | Path | Checkpoint) -> None:
    """Copy the weights of a checkpoint that the authors published into `model`.

    Classification checkpoints go into networks for "imagenet", whole-body checkpoints (of mmpose 0.x) into
    networks for "wholebody", of the same variant. Every tensor must find its place.

    Args:
        model: from `create_model`.
        checkpoint: the file, or what it holds, or its weights alone.

    Raises:
        UserError: no such file, one that holds more than data, or weights with tensors that are missing, unknown
            or of another shape; the message lists them.
    """
    load_strictly(model, read_released_weights(checkpoint), _name_of(checkpoint))


def read_released_weights(checkpoint: str | Path | Checkpoint) -> dict[str, Tensor]:
    """The weights of a published checkpoint under our names. See `load_released_weights`."""
    content = _read(Path(checkpoint)) if isinstance(checkpoint, str | Path) else checkpoint
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(
            f"{_name_of(checkpoint)} holds no weights: expected tensors by name, at the top or below "
            f"{' or '.join(repr(entry) for entry in _ENTRIES)}; give a checkpoint as the authors published it."
        )
    return {from_released_name(name): tensor for name, tensor in content.items()}


def from_released_name(name: str) -> str:
    """Our name of a parameter of the released checkpoints.

    Ours are theirs, except that the classifier's backbone has the prefix `backbone.` here as it has in their pose
    checkpoints.
    """
    name = name.removeprefix(_WRAPPER)
    return name if name.startswith((_BACKBONE, *_OTHERS)) else _BACKBONE + name


def _name_of(checkpoint: str | Path | Checkpoint) -> str:
    return f"The file {checkpoint}" if isinstance(checkpoint, str | Path) else "The checkpoint"


def _read(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}; give the path of one of the authors' files.")
    try:
        # Their classification checkpoints hold the command line's arguments, which are a plain record.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what foreign bytes make the reader stumble over is not foreseeable
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The file {path} was not read: it is damaged, no PyTorch checkpoint, or holds code rather than data "
            f"({reason}); fetch the authors' file again."
        ) from error

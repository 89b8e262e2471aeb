"""Read the checkpoints that the authors published."""

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
# In the classification checkpoints, names of the backbone's parameters have no prefix; in the pose checkpoints they do.
_OTHERS: Final = ("head.", "neck.", "keypoint_head.")
_WRAPPER: Final = "module."  # of torch's DistributedDataParallel
#: Entries of a checkpoint that can contain the weights; others are optimiser state, arguments and so on.
_ENTRIES: Final = ("model", "state_dict")

Checkpoint = Mapping[str, Any]


def load_released_weights(model: Network, checkpoint: str | Path | Checkpoint) -> None:
    """Copy the weights of a checkpoint that the authors published into `model`.

    Classification checkpoints fit networks for "imagenet" of the same variant; whole-body checkpoints (of mmpose 0.x)
    fit networks for "wholebody". Each tensor of the checkpoint must belong to a tensor of the network, and vice versa.

    Args:
        model: from `create_model`.
        checkpoint: the file, its content, or only its weights.

    Raises:
        UserError: the file does not exist or contains code, or tensors are missing, unknown or of another shape. The
            message lists them.
    """
    load_strictly(model, read_released_weights(checkpoint), _name_of(checkpoint))


def read_released_weights(checkpoint: str | Path | Checkpoint) -> dict[str, Tensor]:
    """Read the weights of a published checkpoint, by our names. See `load_released_weights`."""
    content: object = _read(Path(checkpoint)) if isinstance(checkpoint, str | Path) else checkpoint
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(
            f"{_name_of(checkpoint)}: contains no weights; expected tensors by name, at the top or below "
            f"{' or '.join(repr(entry) for entry in _ENTRIES)}; use a checkpoint that the authors published"
        )
    return {from_released_name(name): tensor for name, tensor in content.items()}


def from_released_name(name: str) -> str:
    """Convert the name of a parameter in the released checkpoints to ours.

    The names are the same, except that the backbone of a classifier has the prefix `backbone.` here. In the released
    checkpoints only the pose networks have it.
    """
    name = name.removeprefix(_WRAPPER)
    return name if name.startswith((_BACKBONE, *_OTHERS)) else _BACKBONE + name


def _name_of(checkpoint: str | Path | Checkpoint) -> str:
    return str(checkpoint) if isinstance(checkpoint, str | Path) else "the checkpoint"


def _read(path: Path) -> object:
    import torch

    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a checkpoint of the authors")
    try:
        # The classification checkpoints contain the arguments of the command line, which are a plain record.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        # The first sentence. What follows in torch's message is advice to load the file without protection.
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise UserError(
            f"{path}: cannot be read, because it is damaged, is not a PyTorch checkpoint, or contains code ({reason}); "
            f"download the file of the authors again"
        ) from error

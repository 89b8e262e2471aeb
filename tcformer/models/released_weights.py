"""Read the weights in checkpoints: those that the authors published, those of mmpose, and those of other trainers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from tcformer.errors import UserError, listed
from tcformer.files import user_path
from tcformer.models.checkpoint_files import StoredTensor, read_checkpoint
from tcformer.models.networks import Network
from tcformer.models.patch_norm import DEFAULT_EPS, MMPOSE_EPS, set_patch_norm_eps
from tcformer.models.strict_loading import load_strictly

_BACKBONE: Final = "backbone."
# In the classification checkpoints, names of the backbone's parameters have no prefix; in the pose checkpoints they do.
_OTHERS: Final = ("head.", "neck.", "keypoint_head.", "mesh_head.")
#: Parts of names that wrappers of a network add: torch's DistributedDataParallel, torch.compile, FSDP and torch's
#: activation checkpointing.
_WRAPPERS: Final = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: First parts of the networks' own names, and of numbers that the averages of torch and of mmengine add.
_COUNTERS: Final = ("n_averaged", "steps")
_FIRST_PARTS: Final = (
    *("backbone", "neck", "head", "keypoint_head", "mesh_head", "patch_embed1", *_COUNTERS),
    *(f"{name}{stage}" for name in ("block", "norm", "ctm") for stage in range(1, 5)),
)
#: First parts of names in checkpoints of Lightning and other trainers, whose modules contain the network.
_OWNERS: Final = ("model", "net", "network")
_AVERAGED_OWNERS: Final = ("ema", "ema_model", "ema_net", "model_ema", "averaged_model")
#: Entries of a checkpoint that can contain the weights; others are optimiser state, arguments and so on.
_ENTRIES: Final = ("state_dict", "model", "model_state_dict", "module", "network", "net", "weights", "params")
#: Entries with moving averages of the weights. They are used if there are no others.
_AVERAGED_ENTRIES: Final = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "model_state_dict_ema", "params_ema"),
    *("ema", "ema_model", "averaged_model"),
)
_MOST_LEVELS: Final = 4  # of entries in entries

#: mmpose 0.x calls the convolution of the patch embedding "projection".
_PATCH_CONV, _MMPOSE_PATCH_CONV = "patch_embed1.proj.", "patch_embed1.projection."

Checkpoint = Mapping[str, Any]
Say = Callable[[str], None]


class ReleasedWeights(NamedTuple):
    """The weights in a checkpoint.

    Attributes:
        tensors: by our names.
        patch_norm_eps: see `tcformer.models.patch_norm`.
        choices: what was chosen among the content of the checkpoint, for the user; empty if there was no choice.
    """

    tensors: dict[str, Tensor]
    patch_norm_eps: float
    choices: list[str]


def warn(text: str) -> None:
    """Tell the user of a library function something."""
    warnings.warn(text, stacklevel=3)


def load_released_weights(model: Network, checkpoint: str | Path | Checkpoint, say: Say = warn) -> None:
    """Copy the weights of a checkpoint that the authors published, or of another trainer, into `model`.

    Classification checkpoints fit networks for "imagenet" of the same variant; whole-body checkpoints (of mmpose 0.x)
    fit networks for "wholebody". Each tensor of the checkpoint must belong to a tensor of the network, and vice versa.
    Prefixes that torch's DistributedDataParallel and compile or Lightning add to names are removed. Of averaged and
    other weights the others are used.

    Args:
        model: from `create_model`.
        checkpoint: the file, its content, or only its weights.
        say: receives what was chosen, if the checkpoint contains more than the weights of one network.

    Raises:
        UserError: the file does not exist or contains code, or tensors are missing, unknown or of another shape. The
            message lists them.
    """
    weights = read_released_weights(checkpoint)
    load_strictly(model, weights.tensors, _name_of(checkpoint))
    set_patch_norm_eps(model, weights.patch_norm_eps)
    for choice in weights.choices:
        say(choice)


def read_released_weights(checkpoint: str | Path | Checkpoint) -> ReleasedWeights:
    """Read the weights of a checkpoint, by our names. See `load_released_weights`."""
    content: object = _read(user_path(checkpoint)) if isinstance(checkpoint, str | Path) else checkpoint
    name = _name_of(checkpoint)
    found = list(_weights_in(content))
    if not found:
        raise UserError(
            f"{name}: contains no weights; expected tensors by name, at the top or below one of "
            f"{', '.join(repr(entry) for entry in (*_ENTRIES, *_AVERAGED_ENTRIES))}; {_found_in(content)}"
        )
    entry, stored = found[0]
    choices = []
    averaged = any(part in _AVERAGED_ENTRIES for part in entry.split("."))
    if averaged or len(found) > 1:
        others = listed([repr(other) for other, _ in found[1:]])
        reason = f"not those in {others}" if others else "it contains no others"
        choices.append(f"{name}: the {'averaged ' if averaged else ''}weights in {entry!r} are used; {reason}")
    stored = _of_the_network(stored, name, choices)
    mmpose = any(_MMPOSE_PATCH_CONV in key for key in stored)
    if mmpose:
        choices.append(f"{name}: has the names of mmpose's TCFormer, whose first LayerNorm has eps {MMPOSE_EPS:g}")
    tensors = {
        from_released_name(key): tensor.load() if isinstance(tensor, StoredTensor) else tensor
        for key, tensor in stored.items()
    }
    return ReleasedWeights(tensors, MMPOSE_EPS if mmpose else DEFAULT_EPS, choices)


def _read(path: Path) -> object:
    """The content of a file of torch.save, or the tensors of a safetensors file of another program."""
    if not is_safetensors(path):
        return read_checkpoint(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}); copy or download the file again") from error


def is_safetensors(path: Path) -> bool:
    """Whether a file exists and begins as a safetensors file does: the ninth byte begins its description in JSON."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _weights_in(content: object, levels: int = _MOST_LEVELS) -> Iterator[tuple[str, dict[str, Tensor | StoredTensor]]]:
    """The mappings of names to tensors, with the dotted name of their entry; what is preferred comes first."""
    if not isinstance(content, Mapping) or not content or not levels:
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor | StoredTensor)}
    if len(tensors) == len(content) and all(isinstance(key, str) for key in tensors):
        yield "", tensors
        return
    for entry in (*_ENTRIES, *_AVERAGED_ENTRIES):
        for below, found in _weights_in(content.get(entry), levels - 1):
            yield f"{entry}.{below}".rstrip("."), found


def _found_in(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"found {type(content).__name__}"
    return f"found the entries {listed([repr(key) for key in content])}" if content else "it is empty"


def _of_the_network(
    stored: dict[str, Tensor | StoredTensor], source: str, choices: list[str]
) -> dict[str, Tensor | StoredTensor]:
    """The tensors of the network, without the prefixes of wrappers, trainers and averages.

    Args:
        stored: the tensors by their names in the checkpoint.
        source: the checkpoint, for messages.
        choices: what is chosen is appended.
    """
    by_owner: dict[str, dict[str, Tensor | StoredTensor]] = {}
    owners = (*_OWNERS, *_AVERAGED_OWNERS)
    for key, tensor in stored.items():
        parts = [part for part in key.split(".") if part not in _WRAPPERS]
        owner = ""
        while len(parts) > 1 and parts[0] in owners and parts[1] in (*_FIRST_PARTS, *owners):
            owner = parts[0] if owner not in _AVERAGED_OWNERS else owner
            parts = parts[1:]
        name = ".".join(parts)
        if name in _COUNTERS:
            continue
        known = by_owner.setdefault(owner, {})
        if name in known:
            raise UserError(f"{source}: two tensors are called {name}, apart from prefixes; save one of them")
        known[name] = tensor
    # A trainer's module contains the network and, beside it, losses and metrics without that prefix.
    owner = next((each for each in (*_OWNERS, "", *_AVERAGED_OWNERS) if each in by_owner), "")
    others = sorted(prefix for prefix in by_owner if prefix != owner)
    if others or owner in _AVERAGED_OWNERS:
        averaged = "averaged " if owner in _AVERAGED_OWNERS else ""
        beside = " and ".join(f"{prefix}.*" if prefix else "without this prefix" for prefix in others)
        rest = f"not the tensors {beside}" if others else "it contains no others"
        choices.append(
            f"{source}: the {averaged}weights {owner + '.*' if owner else 'without prefix'} are used; {rest}"
        )
    return by_owner.get(owner, {})


def from_released_name(name: str) -> str:
    """Convert the name of a parameter in the released checkpoints to ours.

    The names are the same, except that the backbone of a classifier has the prefix `backbone.` here (in the released
    checkpoints only the pose networks have it), and that mmpose's name of a convolution is another one.
    """
    name = name.replace(_MMPOSE_PATCH_CONV, _PATCH_CONV)
    return name if name.startswith((_BACKBONE, *_OTHERS)) else _BACKBONE + name


def _name_of(checkpoint: str | Path | Checkpoint) -> str:
    return str(checkpoint) if isinstance(checkpoint, str | Path) else "the checkpoint"

"""Describe weights files, convert checkpoints, and export networks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tcformer.data.keypoints.points import points_from_json
from tcformer.errors import UserError
from tcformer.files import sha256_of_file
from tcformer.inference import LoadedWeights, load_any_weights
from tcformer.inference.base import size_option
from tcformer.models import save_model
from tcformer.models.accounting import count_parameters

_NOT_SHOWN = ("network",)  # of the options of a training: `network` describes the network
_PROVENANCE = "provenance.json"  # beside the weights of a training


def describe(path: Path) -> dict[str, Any]:
    """What a weights file is: task, network, options of the training, provenance.

    Raises:
        UserError: it cannot be read.
    """
    weights = load_any_weights(path)
    config, metadata = weights.model.config, dict(weights.metadata)
    options = metadata.pop("options", None)
    about: dict[str, Any] = {
        "file": str(path),
        "sha256": sha256_of_file(path),
        "task": config["task"],
        "variant": config["variant"],
        "parameters": count_parameters(weights.model),
        "network": config["options"],
    }
    if isinstance(points := config["options"].get("points"), dict):
        about["network"] = {name: value for name, value in config["options"].items() if name != "points"}
        about["points"] = _points(points)
    if options is not None:
        about["training"] = {name: value for name, value in weights.trained.items() if name not in _NOT_SHOWN}
    if metadata:
        about["metadata"] = metadata
    if provenance := _provenance(path):
        about["provenance"] = provenance
    if weights.notes:
        about["notes"] = weights.notes
    return about


def _points(described: dict[str, Any]) -> dict[str, Any]:
    """The points of a network, with names in place of indices."""
    points = points_from_json(described)

    def named(pairs: Iterable[tuple[int, int]]) -> str:
        return ", ".join(f"{points.names[a]} - {points.names[b]}" for a, b in pairs)

    return {
        "category": points.category or "not known",
        "names": ", ".join(points.names),
        "skeleton": named(points.skeleton) or "none",
        "left/right": "not known" if points.flip is None else named(points.flip) or "none",
        "sigmas": list(points.sigmas),
        "groups": {name: ", ".join(points.names[i] for i in group) for name, group in points.groups.items()} or "none",
        "normalised by": "not known" if points.normalise is None else named([points.normalise]),
    }


def _provenance(path: Path) -> dict[str, Any] | None:
    file = path.with_name(_PROVENANCE)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def as_text(about: dict[str, Any], indent: str = "") -> str:
    """Nested names and values as lines for a terminal."""
    width = max(map(len, about), default=0)
    lines = []
    for name, value in about.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", as_text(value, f"{indent}  ")]
        else:
            shown = f"{value:,}" if name == "parameters" else value if isinstance(value, str) else json.dumps(value)
            lines.append(f"{indent}{name:<{width}}  {shown}")
    return "\n".join(lines)


def convert(source: Path, target: Path) -> LoadedWeights:
    """Write the weights of a checkpoint as a safetensors file, from which `tcformer.load_model` rebuilds the network.

    Raises:
        UserError: the checkpoint cannot be read, or the file cannot be written.
    """
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: expected a name that ends with .safetensors; give another name")
    weights = load_any_weights(source)
    metadata = {**weights.metadata, "converted_from": f"{source.name}, SHA-256 {sha256_of_file(source)}"}
    try:
        save_model(weights.model, target, metadata)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give another file") from error
    return weights


def export(source: Path, target: Path, size: tuple[int, int] | None, opset: int) -> tuple[float, tuple[int, int]]:
    """Write the network of a weights file as ONNX.

    Args:
        source: the weights.
        target: the ONNX file.
        size: (height, width) of its input; None: that of the training.
        opset: version of the ONNX operators.

    Returns:
        The difference of the outputs, see `tcformer.export_onnx`, and the size.

    Raises:
        UserError: see `tcformer.export_onnx`, or the size is not known.
    """
    from tcformer.models.export import export_onnx

    weights = load_any_weights(source)
    if size is None:
        if "input_size" not in weights.trained:
            raise UserError(f"{source}: does not say the size of the network's input; give it with --size HEIGHT WIDTH")
        size = size_option(weights.trained, (0, 0))
    return export_onnx(weights.model, target, size, opset), size

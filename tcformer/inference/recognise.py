"""Load weights of any origin: those that this project wrote, and checkpoints of the authors and of other trainers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcformer.data.face.landmarks import NUM_LANDMARKS
from tcformer.data.wholebody.keypoints import SUBSETS, subset
from tcformer.errors import UserError
from tcformer.files import user_path
from tcformer.models.factory import create_model, list_models
from tcformer.models.networks import Network
from tcformer.models.patch_norm import OPTION as PATCH_NORM_EPS
from tcformer.models.released_weights import read_released_weights
from tcformer.models.strict_loading import load_strictly
from tcformer.models.weights import is_released, load_model, read_about


@dataclass(frozen=True)
class LoadedWeights:
    """A network with its weights, in evaluation mode on the CPU.

    Attributes:
        path: the file.
        model: the network.
        metadata: texts by name that were stored with the weights; empty for the checkpoint of another trainer.
        notes: what was chosen among the content of a checkpoint.
    """

    path: Path
    model: Network
    metadata: dict[str, str]
    notes: list[str]

    @property
    def task(self) -> str:
        """What the network is for, see `create_model`."""
        task: str = self.model.config["task"]
        return task

    @property
    def trained(self) -> dict[str, Any]:
        """The options of the training; empty if they are not known.

        Raises:
            UserError: the file names them in another form.
        """
        if "options" not in self.metadata:
            return {}
        try:
            options = json.loads(self.metadata["options"])
        except (ValueError, RecursionError):
            options = None
        if not isinstance(options, dict):
            raise UserError(f"{self.path}: the options of its training are not a JSON object; copy the file again")
        return options


def load_any_weights(path: Path | str) -> LoadedWeights:
    """Load a weights file. What a checkpoint of another trainer contains is recognised by its tensors.

    Raises:
        UserError: the file does not exist, is damaged, or contains an unknown network.
    """
    path = user_path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected a weights file; give the path of model.safetensors or a .pth")
    if not is_released(path):
        model = load_model(path).eval()
        return LoadedWeights(path, model, read_about(path)[1], [])
    weights = read_released_weights(path)
    model = _matching(weights.tensors, weights.patch_norm_eps, path)
    load_strictly(model, weights.tensors, str(path))
    return LoadedWeights(path, model.eval(), {}, weights.choices)


def _matching(tensors: Mapping[str, Tensor], patch_norm_eps: float, path: Path) -> Network:
    """A new network that has the same tensors.

    Raises:
        UserError: there is none.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for task, options in _heads(shapes):
        for variant in list_models():
            for reduction in ("ctm", "conv"):
                chosen = {**options, "token_reduction": reduction, PATCH_NORM_EPS: patch_norm_eps}
                with torch.device("meta"):  # no memory, no time
                    candidate = create_model(variant, task, **chosen)
                if {name: tuple(tensor.shape) for name, tensor in candidate.state_dict().items()} == shapes:
                    return create_model(variant, task, **chosen)
    raise UserError(
        f"{path}: its {len(shapes)} tensors are those of no known network; expected a variant of TCFormer "
        f"({', '.join(list_models())}) for ImageNet, whole-body pose, faces or meshes; build another network with "
        "tcformer.create_model, load it with tcformer.load_released_weights, and give the file of tcformer.save_model"
    )


def _heads(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks, with the options of their heads, whose heads have tensors of these shapes."""
    points = shapes.get("keypoint_head.final_layer.bias", (0,))[0]
    if points == NUM_LANDMARKS:
        for neck in ("mta", "deconv"):
            yield "face", {"neck": neck}
    for keypoints in SUBSETS:
        if points == len(subset(keypoints)):
            for neck in ("mta", "deconv"):
                yield "wholebody", {"keypoints": keypoints, "neck": neck}
    if "mesh_head.fc1.weight" in shapes:
        yield "mesh", {}
    if "head.bias" in shapes and 0 < shapes["head.bias"][0] <= 100_000:
        yield "imagenet", {"num_classes": shapes["head.bias"][0]}
    if not points and not any(name.startswith(("head.", "mesh_head.")) for name in shapes):
        yield "features", {}

"""A network in ONNX Runtime, which on CPUs is faster than PyTorch for some networks and batch sizes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import torch
from torch import Tensor

from tcformer.errors import UserError
from tcformer.models import MeshPrediction, Network
from tcformer.models.export import optional_package, weights_digest

_ROUNDS: Final = 3
_EXPORT: Final = "write the file again with `tcformer export`"


class OnnxNetwork(Network):
    """A network whose forward pass runs in ONNX Runtime, on the CPU. It has no backbone, so there are no tokens.

    Args:
        path: file of `tcformer export` or `tcformer.export_onnx`.
        model: the network that was exported.
        input_size: (height, width) of the images that it will get.

    Raises:
        UserError: onnxruntime is not installed, or the file is damaged, or is of another network, other weights or
            another input size.
    """

    def __init__(self, path: Path, model: Network, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = model.config
        runtime = optional_package("onnxruntime")
        if not path.is_file():
            raise UserError(f"{path}: no such file; {_EXPORT}")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # damaged files are reported below
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            about = json.loads(self._session.get_modelmeta().custom_metadata_map["tcformer"])
            found = about["config"], about["weights"], tuple(about["image_size"])
        except Exception as error:  # onnxruntime's errors have no common type
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{path}: cannot be read as an ONNX file of this project ({reason}); {_EXPORT}") from error
        if found[:2] != (model.config, weights_digest(model)):
            raise UserError(f"{path}: was exported from other weights than those of --weights; {_EXPORT}")
        if found[2] != input_size:
            sizes = [f"{height} x {width}" for height, width in (input_size, found[2])]
            raise UserError(f"{path}: expected images of {sizes[0]} pixels, found {sizes[1]}; {_EXPORT} and --size")

    def forward(self, images: Tensor) -> Tensor | MeshPrediction | list[Tensor]:
        """Compute what the network does for images (B, 3, H, W) float32."""
        outputs = [torch.from_numpy(output) for output in self._session.run(None, {"images": images.numpy()})]
        if self.config["task"] == "mesh":
            return MeshPrediction(*outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def seconds_of_each(functions: list[Callable[[Tensor], object]], images: Tensor) -> list[float]:
    """Time functions in alternation on a batch, after one call of each that is not timed.

    Returns:
        The median seconds of a call of each.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in range(_ROUNDS + 1):
        for function, measured in zip(functions, seconds):
            start = time.perf_counter()
            function(images)
            if turn:
                measured.append(time.perf_counter() - start)
    return [median(measured) for measured in seconds]

"""Export networks for other runtimes, as an ONNX file or as a program of torch.export.

    python -m tcformer.models.export WEIGHTS.safetensors OUT.onnx --size 256 192

Both consist of standard operators (the kernels called "portable"), accept one image size and any batch size, and
compute the outputs of the network in evaluation mode, deterministically.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.dpc_knn.portable_backend import known_parts, record_parts
from tcformer.data.images import IMAGE_MEAN, IMAGE_STD
from tcformer.errors import UserError
from tcformer.extras import MissingPackage
from tcformer.files import atomic_write, user_path
from tcformer.models.kernel_choice import use_kernels
from tcformer.models.networks import Network
from tcformer.models.weights import load_model

#: Version of the ONNX operators. From 20 on, GELU is an operator.
OPSET = 20
# From 23 on, attention is an operator, but onnxruntime 1.32 does not broadcast its mask.
_OPSETS = range(18, 23)
_OUTPUTS = {
    "imagenet": ("logits",),
    "wholebody": ("heat_maps",),
    "face": ("heat_maps",),
    "keypoints": ("heat_maps",),
    "mesh": ("rotations", "shape", "camera"),
    "features": ("stage1", "stage2", "stage3", "stage4"),
}
#: Largest difference of outputs, relative to the largest value of the output for the image.
TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)


def export_program(model: Network, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Export the network in evaluation mode as a program of standard operators in float32, for batches of any size.

    Args:
        model: from `create_model` or `load_model`. It is not changed.
        image_size: (H, W) of the images, in pixels.

    Returns:
        A program that maps normalised `images` (B, 3, H, W) to the output of the network. `program.module()` runs it,
        `torch.export.save` writes it. Neither needs this package.

    Raises:
        UserError: the images are too small for the network.
    """
    # Decomposition also removes the operators that only the other kernels need.
    return _trace(model, image_size).run_decompositions()


def export_onnx(model: Network, path: str | Path, image_size: tuple[int, int], opset: int = OPSET) -> float:
    """Export the network in evaluation mode as an ONNX file, after comparing it with PyTorch.

    The file maps `images` (B, 3, H, W), float32 RGB normalised by the mean and standard deviation in its metadata, to
    `logits`, `heat_maps`, `rotations`, `shape` and `camera`, or `stage1` to `stage4`, for any B. Its metadata entry
    "tcformer" is a JSON object with the config of the network, the image size, the SHA-256 of the weights (see
    `weights_digest`), and the mean and standard deviation of values in [0, 1].

    Args:
        model: from `create_model` or `load_model`. It is not changed.
        path: the file. It is written atomically. Its folder is created if it does not exist.
        image_size: (H, W) of the images, in pixels.
        opset: version of the ONNX operators, from 18 to 22.

    Returns:
        The largest difference between onnxruntime and PyTorch, see `compare`.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed, the opset is out of range, the images are too
            small, or onnxruntime differs from PyTorch by more than 1e-4. Then no file is written.
    """
    if opset not in _OPSETS:
        raise UserError(f"opset: expected {_OPSETS[0]} to {_OPSETS[-1]}, found {opset}; choose one of these")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional_package(package)
    proto = _to_onnx(_trace(model, image_size), model.config, image_size, opset, weights_digest(model))
    with atomic_write(user_path(path)) as part:
        part.write_bytes(proto)
        difference = compare(model, part, image_size)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path}: not written, because the outputs of {model.config['variant']} for {model.config['task']} in "
                f"onnxruntime and in PyTorch differ by {difference:.1e} of the largest value; expected at most "
                f"{TOLERANCE:.0e}; try another opset or another version of onnxruntime"
            )
    return difference


def compare(model: Network, path: str | Path, image_size: tuple[int, int]) -> float:
    """Compare an ONNX file of `model` in onnxruntime with PyTorch, on batches of 1 and of 3 smooth random images.

    Args:
        model: the exported network. It is not changed.
        path: the ONNX file.
        image_size: (H, W) of the images, in pixels.

    Returns:
        The largest difference of any output, relative to the largest value of that output for the image.

    Raises:
        UserError: onnxruntime is not installed.
    """
    session = optional_package("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model = _in_evaluation(model)
    worst = 0.0
    for batch in _CHECKED_BATCHES:
        images = random_images(batch, image_size, seed=batch, channels=getattr(model, "in_chans", 3))
        # The same kernels, because others, in float32, decide a near tie differently in about one of thirty images.
        with use_kernels("portable"), torch.no_grad():
            expected = _as_list(model(images))
        outputs = session.run(None, {"images": images.numpy()})
        for own, other in zip(outputs, expected, strict=True):
            worst = max(worst, relative_difference(torch.from_numpy(own), other))
    return worst


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference of `a` and `b` (B, ...), relative to the image's largest value of `b`; NaN if one is NaN."""
    difference = (a - b).flatten(1).abs().amax(1) / b.flatten(1).abs().amax(1)
    return float(difference.amax())


def random_images(batch: int, image_size: tuple[int, int], seed: int = 0, channels: int = 3) -> Tensor:
    """Random smooth colours with a little noise, (batch, channels, H, W), roughly like normalised photographs."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randn(batch, channels, 6, 6, generator=generator)
    images = F.interpolate(colours, image_size, mode="bilinear")
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def _in_evaluation(model: Network) -> Network:
    return copy.deepcopy(model).cpu().float().eval()


def _trace(model: Network, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    model, images = _in_evaluation(model), random_images(2, image_size, channels=getattr(model, "in_chans", 3))
    with use_kernels("portable"), torch.no_grad(), _attention():
        with record_parts() as parts:
            model(images)
        with known_parts(parts):
            dynamic = ({0: torch.export.Dim("batch")},)
            return torch.export.export(model, (images,), dynamic_shapes=dynamic, strict=False)


def _attention() -> AbstractContextManager[None]:
    """Use the mathematical form of attention, because decompositions assume its memory layout."""
    return sdpa_kernel(SDPBackend.MATH)


def _to_onnx(
    program: torch.export.ExportedProgram,
    config: dict[str, Any],
    image_size: tuple[int, int],
    opset: int,
    weights: str = "",
) -> bytes:
    with warnings.catch_warnings(), _attention():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        exported = torch.onnx.export(
            program,
            opset_version=opset,
            input_names=["images"],
            output_names=list(_output_names(config)),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    about = {"config": config, "image_size": list(image_size), "weights": weights}
    if "in_chans" not in config["options"]:  # colour images
        about |= {"mean": list(IMAGE_MEAN), "std": list(IMAGE_STD)}
    proto = exported.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "tcformer", json.dumps(about, sort_keys=True)
    return proto.SerializeToString()


def _output_names(config: dict[str, Any]) -> tuple[str, ...]:
    names, options = _OUTPUTS[config["task"]], config["options"]
    if options.get("num_classes") == 0:
        return ("features",)
    return tuple(names[stage] for stage in options.get("out_indices") or range(len(names)))


def _stable_sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, which the exporter lacks: TopK keeps the order of equal values."""
    op = optional_package("onnxscript").opset18
    size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)


def _as_list(output: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def weights_digest(model: Network) -> str:
    """SHA-256 of the names, shapes and values of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def optional_package(name: str) -> ModuleType:
    """Import a package of the extra `export`.

    Raises:
        UserError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(name)
    except MissingPackage:
        raise
    except ImportError as error:
        raise UserError(
            f"the package {name} of the extra `export` cannot be imported ({error}); install it again, with "
            "`pip install onnx onnxscript onnxruntime`"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tcformer.models.export", description="Export a trained network as an ONNX file and check it."
    )
    parser.add_argument("weights", type=Path, help="a file that tcformer.save_model wrote")
    parser.add_argument("out", type=Path, help="the ONNX file to write")
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("H", "W"), help="of the images, in pixels")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"of the ONNX operators (default {OPSET})")
    args = parser.parse_args(arguments)
    try:
        difference = export_onnx(load_model(args.weights), args.out, tuple(args.size), args.opset)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: onnxruntime and PyTorch differ by {difference:.1e} of the largest value.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

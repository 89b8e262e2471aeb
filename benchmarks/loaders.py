"""How many training samples per second does a CPU core load, and on what does it spend the time?

    python -m benchmarks.loaders --help

One thread is timed by its CPU time, which other programs affect little. Loader processes are timed by wall-clock time,
which other programs affect: the column "load" gives the machine's load average before the measurement.

The options are those of the paper recipe. The files are official samples from a folder, by default the one beside the
repository; if there is none, images of the same size are generated. The operations of RandAugment count as colour.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Row, ratio, report
from pipelines.params import Params, load_params
from pipelines.training.loading import BatchPlan, training_batches
from tcformer import synthetic
from tcformer.data.face.dataset import FaceDataset, face_image_folder, list_file, load_faces
from tcformer.data.imagenet.dataset import ImageFolderDataset, class_names
from tcformer.data.images import IMAGE_STD, ReducedImage, read_image
from tcformer.data.mesh import dataset as mesh
from tcformer.data.mesh.files import load_bodies
from tcformer.data.wholebody.dataset import (
    WholebodyDataset,
    annotated_crops,
    annotation_file,
    image_folder,
    load_people,
)
from tcformer.tasks.base import Batch, Dataset

ROOT = Path(__file__).resolve().parents[1]
BATCH = 16
PROCESSES = (0, 1, 2)

_MODULES = ("imagenet.dataset", "wholebody.dataset", "face.dataset", "mesh.dataset")
#: Functions whose time each stage is the sum of; none of them calls another. They are patched by these names.
STAGES = {
    "read": ("pathlib.Path.read_bytes",),
    "decode": ("simplejpeg.decode_jpeg_header", "simplejpeg.decode_jpeg"),
    "geometry": (
        "tcformer.data.imagenet.dataset.resize",
        *(f"tcformer.data.{module}.cut_crop" for module in _MODULES if not module.startswith("imagenet")),
    ),
    "colour": (
        "tcformer.data.imagenet.dataset.rand_augment",
        "tcformer.data.imagenet.dataset.erase_rectangle",
        *(f"tcformer.data.{module}.normalise" for module in _MODULES),
    ),
    "target": (
        *(f"tcformer.data.{module}.transform_points" for module in ("wholebody.dataset", "face.dataset")),
        *(f"tcformer.data.mesh.dataset._move_{what}" for what in ("points", "joints", "pose")),
    ),
    "batch": ("pipelines.training.loading._collate",),
}


def main() -> None:
    """Time the loaders and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=ROOT / "../shared/samples", help="folder of official samples")
    parser.add_argument("--batches", type=int, default=16, help=f"timed batches of {BATCH} samples")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each loader")
    options = parser.parse_args()
    device = torch.device("cpu")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    params = load_params(ROOT / "params.yaml")
    rows: list[Row] = []
    choices: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        real = options.samples.is_dir()
        sets = official_sets(options.samples, params) if real else generated_sets(Path(scratch), params)
        for task, data in sets.items():
            row: Row = {"task": task, "files": "real" if real else "generated"}
            rows.append(row | measure(data, options.batches, options.repeats))
            if task in ALTERNATIVES:
                row = {"task": task}
                row |= compare(data, *ALTERNATIVES[task], options.batches * BATCH, options.repeats)
                choices.append(row)
    report("Training samples of the paper's recipes, one thread", "loaders-speed", rows, device)
    report("Choices in the loaders, ms a sample", "loaders-choices", choices, device)


def official_sets(samples: Path, params: Params) -> dict[str, Dataset]:
    """The training set of each task from a folder with parts of ImageNet, COCO-WholeBody, WFLW and MPII."""
    mpii = mesh.MeshDataset(
        load_bodies(samples / "mpii/annot/valid.json"),
        samples / "mpii/images",
        params.paper.finetune.mesh.task.input_size,
        params.paper.finetune.mesh.task.augmentation,
    )
    return {
        "imagenet": _imagenet(samples / "imagenet", params),
        "wholebody": _wholebody(samples / "coco_wholebody", "val", params),
        "face": _face(samples / "wflw", "test", params),
        "mesh": mpii,
    }


def generated_sets(folder: Path, params: Params) -> dict[str, Dataset]:
    """The training set of each task from generated images of the most frequent size of the official images."""
    made = params.sample.data
    size = {"imagenet": (375, 500), "wholebody": (480, 640), "face": (1024, 1024), "mesh": (720, 1280)}
    for name in size:
        options: Any = getattr(made, name).generate
        few: dict[str, Any] = {"train_images": 12, "test_images": 2, "val_images": 2}
        few |= {"train_images_per_class": 1, "val_images_per_class": 1}
        known = {field: value for field, value in few.items() if hasattr(options, field)}
        generate: Any = getattr(synthetic, f"generate_{name}")
        generate(folder / name, replace(options, image_size=size[name], **known))
    task = params.paper.finetune.mesh.task
    people = load_bodies(folder / "mesh/dataset_extras/generated_train.npz")
    return {
        "imagenet": _imagenet(folder / "imagenet", params),
        "wholebody": _wholebody(folder / "wholebody", "train", params),
        "face": _face(folder / "face", "train", params),
        "mesh": mesh.MeshDataset(people, folder / "mesh/generated", task.input_size, task.augmentation),
    }


def _imagenet(root: Path, params: Params) -> ImageFolderDataset:
    task = params.paper.pretrain.task
    classes = sorted(class_names(root / "train"))
    return ImageFolderDataset(root, "train", classes, task.input_size, task.crop_fraction, task.augmentation)


def _wholebody(root: Path, split: Literal["train", "val"], params: Params) -> WholebodyDataset:
    task = params.paper.finetune.wholebody.task
    crops = annotated_crops(load_people(annotation_file(root, split)))
    return WholebodyDataset(crops, image_folder(root, split), task.input_size, task.box_padding, task.augmentation)


def _face(root: Path, split: Literal["train", "test"], params: Params) -> FaceDataset:
    task = params.paper.finetune.face.task
    faces = load_faces(list_file(root, split))
    return FaceDataset(faces, face_image_folder(root), task.input_size, task.box_padding, task.augmentation)


def measure(data: Dataset, batches: int, repeats: int) -> Row:
    """Measure samples per second for each number of loader processes, and milliseconds per sample of each stage."""
    load = os.getloadavg()[0]
    next(_batches(data, 1, 0))  # so that the work of the first call only is not timed
    rates: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    for _ in range(repeats):
        for processes in PROCESSES:
            rates[processes].append(rate(data, batches, processes))
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    shrunk: list[bool] = []
    with timed_stages(seconds), recorded_shrinking(shrunk):
        started = time.thread_time()
        for _ in _batches(data, batches, 0):
            pass
        whole = time.thread_time() - started
    seconds["other"] = whole - sum(seconds.values())
    row: Row = {"images/s a core": batches * BATCH / whole}
    row |= {f"{stage} ms": spent / (batches * BATCH) * 1e3 for stage, spent in seconds.items()}
    row |= {f"images/s, {processes} processes": median(rates[processes]) for processes in PROCESSES}
    return row | {"load": load, "share of crops shrunk by 2": sum(shrunk) / len(shrunk)}


def rate(data: Dataset, batches: int, processes: int) -> float:
    """Samples per second of wall-clock time, after the first batches, when all processes have started."""
    first = 2 * max(processes, 1)
    for number, _ in enumerate(_batches(data, first + batches, processes), 1):
        if number == first:
            started = time.perf_counter()
    return batches * BATCH / (time.perf_counter() - started)


def _batches(data: Dataset, batches: int, processes: int) -> Iterator[Batch]:
    """Training batches as a worker loads them."""
    plan = BatchPlan.divide(BATCH, BATCH, 1)
    return training_batches(data, plan, rank=0, seed=0, first_step=0, steps=batches, processes=processes)


@contextmanager
def timed_stages(seconds: dict[str, float]) -> Iterator[None]:
    """A context that adds the CPU time of each stage's functions to `seconds`."""
    from pkgutil import resolve_name

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[stage] += time.thread_time() - started

        return call

    with ExitStack() as stack:
        for stage, names in STAGES.items():
            for name in names:
                stack.enter_context(patch(name, timed(stage, resolve_name(name))))
        yield


@contextmanager
def recorded_shrinking(shrunk: list[bool]) -> Iterator[None]:
    """A context that records whether each crop is reduced to half of its size in the file or less."""
    from tcformer.data import crops
    from tcformer.data.imagenet import dataset as imagefolder

    resize, crop_matrix = imagefolder.resize, crops.crop_matrix

    def watched_resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        shrunk.append(min(pixels.shape[:2]) >= 2 * size)
        return resize(pixels, size)

    def watched_matrix(*arguments: Any, **options: Any) -> NDArray[np.float64]:
        matrix = crop_matrix(*arguments, **options)
        shrunk.append(bool(abs(np.linalg.det(matrix[:, :2])) <= 0.25))
        return matrix

    with ExitStack() as stack:
        stack.enter_context(patch("tcformer.data.imagenet.dataset.resize", watched_resize))
        for module in _MODULES[1:]:
            stack.enter_context(patch(f"tcformer.data.{module}.crop_matrix", watched_matrix))
        yield


def compare(data: Dataset, name: str, target: str, replacement: Callable[..., Any], samples: int, repeats: int) -> Row:
    """Measure milliseconds per sample with and without a function replaced, and the difference between the images.

    Args:
        data: the training set.
        name: the name of the replacement, for the table.
        target: the function that is replaced.
        replacement: the function that takes its place.
        samples: the number of samples in each timed run.
        repeats: the number of timed runs.
    """

    def load(replaced: bool, count: int) -> list[NDArray[np.float32]]:
        with patch(target, replacement) if replaced else ExitStack():
            return [data.sample(i % len(data), np.random.default_rng(i))["image"] for i in range(count)]

    differences = [np.abs(a - b).mean() for a, b in zip(load(False, 32), load(True, 32), strict=True)]
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for replaced, seconds in spent.items():
            started = time.thread_time()
            load(replaced, samples)
            seconds.append(time.thread_time() - started)
    return {
        "in place of": name,
        "ms": median(spent[False]) / samples * 1e3,
        "ms of that": median(spent[True]) / samples * 1e3,
        "ratio": ratio(spent[True], spent[False]),
        "mean difference in grey levels": float(np.mean(differences)) * 255 * float(np.mean(IMAGE_STD)),
    }


def _resize_by_pillow(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def _decode_whole(path: Path, ratio: float) -> ReducedImage:
    pixels = read_image(path)
    return ReducedImage(pixels, 1, (pixels.shape[0], pixels.shape[1]))


#: The alternative of each task: its name, the function of ours that it replaces, and the replacement.
ALTERNATIVES: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "imagenet": ("Pillow's resizing", "tcformer.data.imagenet.dataset.resize", _resize_by_pillow),
    "mesh": ("decoding whole images", "tcformer.data.mesh.dataset.read_reduced", _decode_whole),
}

if __name__ == "__main__":
    main()

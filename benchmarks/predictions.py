"""How much faster are predictions in batches than one by one?

    python -m benchmarks.predictions --help

`Predictor` with one picture and with 16 pictures at once, in alternation, with one thread and random weights, on
pictures of people as `make repro` generates them. Memory is kept as `tcformer predict` keeps it. CPU time, which other
programs affect less than elapsed time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

import tcformer
from benchmarks.measure import Row, ratio, report
from pipelines.params import load_params
from tcformer.data.images import ReducedImage
from tcformer.inference.pictures import read_picture
from tcformer.memory import keep_freed_memory
from tcformer.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 16
#: Tasks, and sizes (height, width) of the networks' inputs.
CASES = (("face", (64, 64)), ("imagenet", (64, 64)), ("wholebody", (128, 96)), ("wholebody", (256, 192)))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tcformer_nano")
    parser.add_argument("--repeats", type=int, default=6, help="timed rounds of each way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    images = _people()
    rows = [_measure(args.backbone, task, size, images, args.repeats) for task, size in CASES]
    title = f"CPU time of predictions with {args.backbone}, milliseconds for each image"
    report(title, "predictions", rows, torch.device("cpu"))


def _people() -> list[ReducedImage]:
    """Pictures of the sample recipe."""
    options = load_params(ROOT / "params.yaml").sample.data_of("wholebody").generate
    with tempfile.TemporaryDirectory() as folder:
        generate = TASKS["wholebody"].part("generate").generate
        generate(
            Path(folder), replace(options, train_images=1, val_images=IMAGES), map=lambda f, xs: [f(x) for x in xs]
        )
        return [read_picture(path) for path in sorted((Path(folder) / "val2017").iterdir())]


def _measure(backbone: str, task: str, size: tuple[int, int], images: list[ReducedImage], repeats: int) -> Row:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        tcformer.save_model(tcformer.create_model(backbone, task), weights)
        predictor = tcformer.Predictor.load(weights, input_size=size, batch=IMAGES, device="cpu")

    def one_by_one() -> None:
        for image in images:
            predictor(image)

    def at_once() -> None:
        predictor.predict(images, [None] * IMAGES)

    alone, together = _cpu_seconds((one_by_one, at_once), repeats)
    row: Row = {"task": task, "input": f"{size[0]} x {size[1]}", "one by one": 1e3 * median(alone) / IMAGES}
    return row | {f"{IMAGES} at once": 1e3 * median(together) / IMAGES, "ratio": ratio(alone, together)}


def _cpu_seconds(calls: tuple[Callable[[], None], ...], repeats: int) -> list[list[float]]:
    """Of each call in each round, after one that is not timed."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, seconds, strict=True):
            start = time.process_time()
            call()
            if turn:
                times.append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main()

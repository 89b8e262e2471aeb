"""How much faster are predictions in batches than one by one?

    python -m benchmarks.predictions --help

`Predictor` with one image and with 16 images at once, in alternation, with one thread and random weights. CPU time,
which other programs affect less than elapsed time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import tcformer
from benchmarks.measure import Row, ratio, report

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
    rows = [_measure(args.backbone, task, size, args.repeats) for task, size in CASES]
    title = f"CPU time of predictions with {args.backbone}, milliseconds for each image"
    report(title, "predictions", rows, torch.device("cpu"))


def _measure(backbone: str, task: str, size: tuple[int, int], repeats: int) -> Row:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        tcformer.save_model(tcformer.create_model(backbone, task), weights)
        predictor = tcformer.Predictor.load(weights, input_size=size, batch=IMAGES, device="cpu")
    images = list(np.random.default_rng(0).integers(0, 256, (IMAGES, 256, 192, 3), dtype=np.uint8))

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

"""How much faster are predictions in batches than one by one?

    python -m benchmarks.predictions --help

`Predictor` with one picture and with 16 pictures at once, in alternation, with one thread and random weights, on
pictures of people as `make repro` generates them. Memory is kept as `tcformer predict` keeps it; before that, 16
pictures at once are timed in memory that is returned to the system. CPU time, which other programs affect less than
elapsed time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

import tcformer
from benchmarks.measure import Row, ratio, report
from pipelines.params import load_params
from tcformer.data.images import ReducedImage
from tcformer.inference.pictures import read_picture
from tcformer.memory import keep_freed_memory
from tcformer.predictor import Predictor
from tcformer.synthetic import generate_wholebody

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
    images = _people()
    predictors = [_predictor(args.backbone, task, size) for task, size in CASES]
    returned = [_cpu_ms((partial(_at_once, predictor, images),), args.repeats)[0] for predictor in predictors]
    keep_freed_memory()
    rows: list[Row] = []
    for (task, (height, width)), predictor, before in zip(CASES, predictors, returned, strict=True):
        calls = (partial(_one_by_one, predictor, images), partial(_at_once, predictor, images))
        alone, together = _cpu_ms(calls, args.repeats)
        row: Row = {"task": task, "input": f"{height} x {width}", "one by one": median(alone)}
        row |= {f"{IMAGES} at once": median(together), "ratio": ratio(alone, together)}
        rows.append(row | {f"{IMAGES} at once, memory returned": median(before)})
    title = f"CPU time of predictions with {args.backbone}, milliseconds for each image"
    report(title, "predictions", rows, torch.device("cpu"))


def _people() -> list[ReducedImage]:
    """Pictures of the sample recipe."""
    options = load_params(ROOT / "params.yaml").sample.data_of("wholebody").generate
    with tempfile.TemporaryDirectory() as folder:
        generate_wholebody(Path(folder), replace(options, train_images=1, val_images=IMAGES))
        return [read_picture(path) for path in sorted((Path(folder) / "val2017").iterdir())]


def _predictor(backbone: str, task: str, size: tuple[int, int]) -> Predictor:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        tcformer.save_model(tcformer.create_model(backbone, task), weights)
        return Predictor.load(weights, input_size=size, batch=IMAGES, device="cpu")


def _one_by_one(predictor: Predictor, images: list[ReducedImage]) -> None:
    for image in images:
        predictor(image)


def _at_once(predictor: Predictor, images: list[ReducedImage]) -> None:
    predictor.predict(images, [None] * len(images))


def _cpu_ms(calls: tuple[Callable[[], None], ...], repeats: int) -> list[list[float]]:
    """CPU time for each image, in milliseconds, of each call in each round, after one that is not timed."""
    found: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, found, strict=True):
            start = time.process_time()
            call()
            if turn:
                times.append(1e3 * (time.process_time() - start) / IMAGES)
    return found


if __name__ == "__main__":
    main()

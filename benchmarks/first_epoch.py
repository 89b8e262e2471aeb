"""How much longer does the first epoch take if a machine has to fetch the dataset from the storage?

    python -m benchmarks.first_epoch --help

Generated people are stored in shards in a storage, which may be an address such as s3://bucket/folder. A machine whose
cache is empty fetches and unpacks them, and reads every sample once, as an epoch does. The same is timed with the files
on its own disk. The ways alternate. Give it a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from benchmarks.measure import Row, report
from pipelines.adapters.storage import Store
from pipelines.datasets.cache import cached_dataset
from pipelines.datasets.shards import store_dataset
from pipelines.params import load_params
from pipelines.training.loading import BatchPlan, training_batches
from tcformer.tasks import TASKS
from tcformer.tasks.base import Dataset

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=800, help="of the training set")
    parser.add_argument("--storage", help="an empty place; default: a folder for temporary files")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    params = load_params(ROOT / "params.yaml").sample
    generate = replace(params.data_of("wholebody").generate, train_images=options.images, val_images=2)
    spec = params.spec_of("wholebody")
    seconds: dict[str, list[float]] = {"files on the disk": [], "from the storage": [], "of which fetching": []}
    with tempfile.TemporaryDirectory() as folder:
        data, storage = Path(folder) / "wholebody", options.storage or f"{folder}/storage"
        TASKS["wholebody"].part("generate").generate(data, generate, map=lambda make, items: [make(i) for i in items])
        sha256 = hashlib.sha256(folder.encode()).hexdigest()  # stands for the dataset's
        store_dataset(Store(storage), data, sha256, lambda: _files(data), "storing the dataset")
        for repeat in range(options.repeats):
            seconds["files on the disk"].append(_epoch(spec.build(data).train_set()))
            cache = Path(folder) / f"cache-{repeat}"
            cache.mkdir()
            start = time.perf_counter()
            with patch("pipelines.datasets.cache.temporary_folder", lambda name, cache=cache: cache):
                copy = cached_dataset(storage, sha256, 10**12, lambda text: None)
            fetching = time.perf_counter() - start
            seconds["of which fetching"].append(fetching)
            seconds["from the storage"].append(fetching + _epoch(spec.build(copy).train_set()))
    disk = median(seconds["files on the disk"])
    rows: list[Row] = [
        {"first epoch": name, "images": options.images, "s": median(times), "ratio": median(times) / disk}
        for name, times in seconds.items()
    ]
    report("Reading an epoch of whole-body crops", "first-epoch", rows, torch.device("cpu"))


def _files(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def _epoch(data: Dataset) -> float:
    """Seconds in which one thread reads and crops each sample once, in the order of a training."""
    plan = BatchPlan.divide(BATCH, BATCH, 1)
    start = time.perf_counter()
    for _ in training_batches(data, plan, 0, 0, 0, len(data) // BATCH, 0):
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

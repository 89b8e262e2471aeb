"""How much longer does a step take with checkpoints, written in the background or waited for?

    python -m benchmarks.checkpoints --help

One worker trains a network on a few generated faces, in this process, with one thread, so that the thread that writes
has a core of its own where there are two. The three ways alternate. A slow store accepts so many MB a second. Wall-
clock time is what counts on a quiet machine; the CPU time of the training's thread contains the copying, but no
waiting, and other programs affect it little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from benchmarks.measure import Row, report
from pipelines.adapters.storage import Store
from pipelines.datasets.location import DataLocation
from pipelines.driver.local import train_locally
from pipelines.params import load_params
from pipelines.training.events import CheckpointSaved, Event
from pipelines.training.events import Row as Measured
from pipelines.training.job import Job
from pipelines.training.writer import CheckpointWriter, Snapshot
from tcformer.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
NEVER = 10**6
WAYS = ("none", "background", "waited for")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tcformer_light")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow", type=float, default=20.0, help="MB a second of the slow store")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder), args.backbone, args.batch, args.steps)
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        size = 0
        for repeat in range(args.repeats):
            for store in ("disk", "slow"):
                for way in WAYS if store == "disk" else WAYS[1:]:
                    found, size = _seconds_a_step(job, way, args.every, None if store == "disk" else args.slow, repeat)
                    times.setdefault((store, way), []).append(found)
    medians = {key: [median(values) for values in zip(*found, strict=True)] for key, found in times.items()}
    wall, cpu = medians["disk", "none"]
    rows: list[Row] = [
        {
            "store": store,
            "checkpoints": way,
            "ms a step": 1e3 * found[0],
            "ratio": found[0] / wall,
            "CPU ms a step": 1e3 * found[1],
            "CPU ratio": found[1] / cpu,
        }
        for (store, way), found in medians.items()
    ]
    title = f"{args.backbone}, batch {args.batch}, a checkpoint of {size / 1e6:.0f} MB every {args.every} steps"
    report(title, f"checkpoints-b{args.batch}-every-{args.every}", rows, torch.device("cpu"))


def _job(folder: Path, backbone: str, batch: int, steps: int) -> Job:
    """Faces: 64 images; no validation before the end."""
    params = load_params(ROOT / "params.yaml").sample
    options = replace(params.data_of("face").generate, train_images=64, test_images=2)
    data = folder / "face"
    TASKS["face"].part("generate").generate(data, options, map=lambda function, items: [function(i) for i in items])
    changes = {"epochs": steps * batch // 64, "global_batch": batch, "micro_batch": batch, "log_every": 1}
    training = params.training_of("face").training.model_copy(update={**changes, "validate_every": NEVER})
    spec = params.spec_of("face")
    spec = replace(spec, network=replace(spec.network, backbone=backbone))
    return Job("finetune-face", "benchmark", spec, DataLocation(str(data)), training, str(folder / "store"), None, 0)


def _seconds_a_step(job: Job, way: str, every: int, slow: float | None, repeat: int) -> tuple[tuple[float, float], int]:
    """Mean wall-clock and CPU time of a step from the second one on, and the size of a checkpoint in bytes."""
    moments: list[tuple[float, float]] = []
    sizes: list[int] = [0]
    write, start = Store.write, CheckpointWriter.start

    def note(event: Event) -> None:
        if isinstance(event, Measured) and "loss" in event.values:
            moments.append((time.perf_counter(), time.thread_time()))

    def write_slowly(store: Store, key: str, content: bytes) -> None:
        if slow:
            time.sleep(len(content) / (1e6 * slow))
        write(store, key, content)

    def start_and_wait(writer: CheckpointWriter, name: str, snapshot: Snapshot, done: Event | None = None) -> None:
        start(writer, name, snapshot, done)
        if isinstance(done, CheckpointSaved):
            sizes.append(snapshot.size)
            if way == "waited for":
                writer.wait()

    training = job.training.model_copy(update={"checkpoint_every": NEVER if way == "none" else every})
    store = f"{job.store}-{way}-{slow}-{repeat}"
    with patch.object(Store, "write", write_slowly), patch.object(CheckpointWriter, "start", start_and_wait):
        train_locally(replace(job, training=training, store=store), note)
    wall, cpu = ((last - first) / (len(moments) - 1) for first, last in zip(moments[0], moments[-1], strict=True))
    return (wall, cpu), sizes[-1]


if __name__ == "__main__":
    main()

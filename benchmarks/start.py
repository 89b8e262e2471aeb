"""Where does the time go between the start of a training stage and its first step?

    python -m benchmarks.start --help

A training of generated faces is started several times on a Ray that runs already, as the stages of `make repro` are,
in a copy of the repository. The processes of Ray are found by the names that it gives them, every 0.1 s. Run it on a
machine that does nothing else: two processes on two cores import PyTorch at the same time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import psutil
import torch
from ruamel.yaml import YAML

from benchmarks.measure import Row, report
from pipelines.adapters.ray import SHARED, address_of_session, session
from pipelines.dotted import assign
from pipelines.params import load_params
from tcformer import create_model, save_model

ROOT = Path(__file__).resolve().parents[1]
STAGE = (sys.executable, "-u", "-m", "stages.finetune", "face", "--fresh")
FIRST_STEP = " steps on "  # in the line that a stage prints when its workers are about to begin
#: Milestones: a process of Ray with this in its name exists, then the line is there.
PROCESSES = {"the first worker": "ray::TrainingWorker"}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder, session(params.cluster):
        copy = _copy(Path(folder) / "copy", options.workers)
        environment = {**os.environ, "RAY_ADDRESS": address_of_session(), SHARED: "1"}
        subprocess.run((sys.executable, "-m", "stages.prepare", "face", "--local"), cwd=copy, check=True)
        found = [_milestones(copy, environment) for _ in range(options.repeats)]
    rows: list[Row] = [
        {
            "workers": options.workers,
            "from the start of the stage to": name,
            "s": median(times[name] for times in found),
        }
        for name in found[0]
    ]
    report("Start of a training stage on a running Ray", "start", rows, torch.device("cpu"))


def _copy(folder: Path, workers: int) -> Path:
    """The repository's code with a short training of a few faces."""
    for name in ("kernels", "tcformer", "pipelines", "stages"):
        shutil.copytree(ROOT / name, folder / name)  # with what Python and numba have compiled
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    yaml, path = YAML(), folder / "params.yaml"
    tree = yaml.load(path.read_text(encoding="utf-8"))
    initial = folder / "initial.safetensors"
    save_model(create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    changes = {
        "cluster.workers": workers,
        "sample.data.face.generate.train_images": 64,
        "sample.data.face.generate.test_images": 4,
        "sample.finetune.face.initial": str(initial),
        "sample.finetune.face.training.epochs": 1,
    }
    for name, value in changes.items():
        assign(tree, name, value)
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)
    return folder


def _milestones(copy: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds from the start of the stage until each milestone."""
    found: dict[str, float] = {}
    before = set(psutil.pids())
    start = time.monotonic()
    process = subprocess.Popen(STAGE, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1) and len(found) < len(PROCESSES):
            new = (each for each in psutil.process_iter(["cmdline"]) if each.pid not in before)
            names = [" ".join(each.info["cmdline"] or ()) for each in new]
            for milestone, name in PROCESSES.items():
                if milestone not in found and any(each.startswith(name) for each in names):
                    found[milestone] = time.monotonic() - start

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout
    first_step = 0.0
    for line in process.stdout:
        if FIRST_STEP in line and not first_step:
            first_step = time.monotonic() - start
    ended.set()
    watcher.join()
    if process.wait():
        raise SystemExit(f"{' '.join(STAGE)} failed: its message is above")
    return {**found, "the first step": first_step}


if __name__ == "__main__":
    main()

"""Trainings that cannot go on, through the real tools: a worker raises or hangs, the driver is asked to end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import tcformer
from tests.conftest import Workplace, make_workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.long]

STAGE = ("python", "-m", "stages.finetune", "face")
ANEW = (*STAGE, "--fresh")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_ray: dict[str, str]) -> Workplace:
    """Faces are prepared and trained for six steps; checkpoints are only taken where one is asked for."""
    workplace = make_workplace(tmp_path_factory.mktemp("faults") / "work place")
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    settings = {"initial": str(initial), "training__epochs": 6, "training__log_every": 4, "training__global_batch": 8}
    workplace.set(
        cluster__stall_timeout=16.0, **{f"sample__finetune__face__{name}": value for name, value in settings.items()}
    )
    workplace.run("python", "-m", "stages.prepare", "face", **shared_ray)
    workplace.run("python", "-m", "stages.finetune", "face", **shared_ray)
    return workplace


@pytest.fixture
def faces(trained: Workplace, tmp_path: Path) -> Workplace:
    """A copy of `trained` for one test."""
    folder = tmp_path / "work place"
    shutil.copytree(trained.folder, folder)
    return Workplace(folder)


def ray_workers(address: str) -> set[psutil.Process]:
    """The training processes of the Ray at an address: children of its raylet."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            is_worker = "ray::TrainingWorker" in " ".join(process.info["cmdline"] or ())
            if is_worker and (raylet := process.parent()) and address in " ".join(raylet.cmdline()):
                found.add(process)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(shared_ray: dict[str, str]) -> Iterator[None]:
    """10 seconds after the test there are no training processes."""
    yield
    deadline = time.monotonic() + 10
    while left := ray_workers(shared_ray["RAY_ADDRESS"]):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_an_exception_of_one_worker_ends_the_training(faces: Workplace, shared_ray: dict[str, str]) -> None:
    """The other worker waits for it in a collective; the broken image is one of rank 1's in the first validation."""
    images = sorted((faces.folder / "data" / "sample" / "face").rglob("*.jpg"))
    lists = faces.folder / "data" / "sample" / "face"
    test_list = next(lists.rglob("list_98pt_rect_attr_test.txt")).read_text().splitlines()
    broken = next(path for path in images if path.name == Path(test_list[1].split()[-1]).name)
    broken.write_bytes(broken.read_bytes()[:100])
    process = faces.start(*ANEW, **shared_ray)
    assert process.stdout
    lines, ready = [], 0.0
    for line in process.stdout:
        lines.append(line)
        if "2 cpu workers" in line:  # a step and the validation come next
            ready = time.monotonic()
    printed = "".join(lines)
    assert process.wait() == 2 and broken.name in printed and "Traceback" not in printed, printed
    assert time.monotonic() - ready < 15


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_takes_a_checkpoint(
    faces: Workplace, shared_ray: dict[str, str], number: signal.Signals, status: int
) -> None:
    weights = faces.folder / "runs" / "sample" / "finetune" / "face" / "model.safetensors"
    undisturbed = weights.read_bytes(), weights.with_name("training.csv").read_bytes()

    process = faces.start(*ANEW, TCFORMER_FAULT="slow:0:2")
    assert process.stdout
    for line in process.stdout:
        if "workers" in line:
            break
    time.sleep(3)
    # A terminal sends Ctrl-C to all processes of a command; DVC, a scheduler or a cloud end the command itself.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    asked = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == status, printed
    assert "with a checkpoint" in printed and "Traceback" not in printed, printed
    assert time.monotonic() - asked < 15, "at most two slow steps, the checkpoint and the end of Ray's processes"
    with sqlite3.connect(faces.folder / "mlflow.db") as database:
        query = "select status from runs order by start_time"
        assert database.execute(query).fetchall() == [("FINISHED",), ("KILLED",)]
    printed = faces.run(*STAGE, **shared_ray)
    assert "resumed after step" in printed
    assert (weights.read_bytes(), weights.with_name("training.csv").read_bytes()) == undisturbed


def test_a_worker_that_is_lost_too_often_ends_in_one_sentence(faces: Workplace, shared_ray: dict[str, str]) -> None:
    faces.set(cluster__max_failures=0)
    printed = faces.run(*ANEW, status=2, TCFORMER_FAULT="kill:1:2")
    assert "lost its workers more than cluster.max_failures = 0 times" in printed and "Traceback" not in printed, (
        printed
    )


def test_a_worker_that_hangs_is_named(faces: Workplace, shared_ray: dict[str, str]) -> None:
    printed = faces.run(*ANEW, status=2, TCFORMER_FAULT="hang:1:2")
    assert "error: training finetune-face stalls: no sign of life for 16 s from rank 1 on" in printed, printed
    assert "Traceback" not in printed

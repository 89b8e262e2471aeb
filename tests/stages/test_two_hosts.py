"""A cluster of two hosts that share an S3 server and nothing else: neither files, nor processes, nor memory."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import tcformer
from pipelines.training.faults import VARIABLE
from tests.conftest import Workplace
from tests.hosts import KEYS, S3_PORT, Host, connect, keys, s3_server, wait_until, why_there_are_none

pytestmark = [
    *(pytest.mark.slow, pytest.mark.pipeline, pytest.mark.long),
    pytest.mark.skipif(why_there_are_none() is not None, reason=str(why_there_are_none())),
]
PORT = 26511
FACE = (
    ("stages.prepare", "face"),
    ("stages.finetune", "face"),
    ("stages.evaluate", "face"),
    ("stages.visualize", "face"),
)


class HostCluster:
    """A Ray of two hosts; stages are started on the first one.

    Args:
        place: the repository of the first host; the second one does not see it.
        folder: for the hosts' own files.
    """

    def __init__(self, place: Workplace, folder: Path) -> None:
        self._place, self._folder = place, folder
        (folder / "first").mkdir(parents=True)
        self.first = Host("first-disk", "10.77.0.1", folder, ())
        self.printed: dict[str, list[str]] = {}
        self._ray = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": "eth0",
            VARIABLE: "slow:0:1",  # so that there is time to disturb a training
        }
        own = str(folder / "first")
        self._own = {"TMPDIR": own, "HOME": own, **self._ray}
        self.second = self._new_second()

    def begin(self) -> None:
        """Start Ray on both hosts."""
        temp = f"/tmp/ray-hosts-{os.getpid()}"
        more = ("--head", "--port", str(PORT), "--include-dashboard", "false", "--temp-dir", temp)
        self._head = self._start_ray(self.first, *more, **self._own)
        self._join_second()

    def _new_second(self) -> Host:
        host = Host("second", "10.77.0.2", self._folder, (Path("/tmp"),))
        assert not host_sees(host, self._place.folder / "params.yaml"), "put the temporary files of tests below /tmp"
        connect(self.first, host)
        return host

    def _start_ray(self, host: Host, *more: str, **environment: str) -> subprocess.Popen[str]:
        where = ("--node-ip-address", host.address, "--num-cpus", "1")
        process = host.start("ray", "start", "--block", *where, *more, **environment)
        self._read(process, f"ray on {host.name}")
        return process

    def _join_second(self) -> None:
        probe = f"import socket; socket.create_connection(('{self.first.address}', {PORT}), 1)"

        def head_answers() -> bool:
            process = self.second.start("python", "-c", probe)
            process.communicate()
            assert self._head.poll() is None, "".join(self.printed[f"ray on {self.first.name}"])
            return process.returncode == 0

        wait_until(head_answers, "head of Ray")
        self._start_ray(self.second, "--address", f"{self.first.address}:{PORT}", TMPDIR="/tmp", **self._ray)

        def has_joined() -> bool:
            assert self._head.poll() is None, "".join(self.printed[f"ray on {self.first.name}"])
            return any("Ray runtime started" in line for line in self.printed["ray on second"])

        wait_until(has_joined, "second node")

    def start(self, *module: str) -> subprocess.Popen[str]:
        """Start a stage on the first host."""
        storage = {**KEYS, "AWS_ENDPOINT_URL": f"http://{self.first.address}:{S3_PORT}"}
        address = {"RAY_ADDRESS": f"{self.first.address}:{PORT}"}
        environment = {**self._own, **storage, **address}
        process = self.first.start("python", "-m", *module, cwd=self._place.folder, **environment)
        self._read(process, " ".join(module))
        return process

    def run(self, *module: str) -> str:
        """Run a stage on the first host to its end; returns what it printed."""
        return self.finish(self.start(*module), *module)

    def finish(self, process: subprocess.Popen[str], *module: str) -> str:
        """Wait for a stage; returns what it printed."""
        status, text = process.wait(timeout=1200), "".join(self.printed[" ".join(module)])
        assert status == 0 and "Traceback" not in text, text
        return text

    def _read(self, process: subprocess.Popen[str], name: str) -> None:
        """Keep what a process prints."""
        lines = self.printed[name] = []
        assert process.stdout is not None
        threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True).start()

    def replace_second(self) -> None:
        """The second host loses its power, and starts again with the files on its disk."""
        self.second.kill()
        self.second = self._new_second()
        self._join_second()

    def close(self) -> None:
        """End both hosts."""
        for host in (self.second, self.first):
            host.kill()


def host_sees(host: Host, path: Path) -> bool:
    process = host.start("test", "-e", str(path))
    process.communicate()
    return process.returncode == 0


@pytest.fixture
def faces(workplace: Workplace) -> Workplace:
    """A training of faces, of ten steps with as many checkpoints, from given weights."""
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    settings = {"initial": str(initial), "training__epochs": 10, "training__checkpoint_every": 1}
    settings |= {"training__validate_every": 5, "training__log_every": 1}
    workplace.set(cluster__workers=2, **{f"sample__finetune__face__{name}": value for name, value in settings.items()})
    return workplace


@pytest.fixture
def cluster(faces: Workplace, tmp_path: Path) -> Iterator[HostCluster]:
    faces.set(cluster__storage="s3://bucket/cluster")
    cluster = HostCluster(faces, tmp_path / "hosts")
    try:
        cluster.begin()
        yield cluster
    finally:
        for name, lines in cluster.printed.items():  # shown where the test fails
            print(f"== {name}", *lines[-30:], sep="\n")
        cluster.close()


def outputs(folder: Path) -> dict[str, str]:
    """Hashes of the files that DVC keeps."""
    places = (folder / "data", *(folder / "runs/sample" / name for name in ("finetune", "evaluate", "visualize")))
    files = (path for place in places for path in sorted(place.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_stage(process: subprocess.Popen[str]) -> None:
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.wait()


def test_a_task_from_preparation_to_drawings_with_faults_equals_one_machine(
    faces: Workplace, cluster: HostCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with s3_server(cluster.first) as server:
        _with_faults(cluster, server)
    here = outputs(faces.folder)
    cached = tmp_path / "hosts/second/0" / f"tcformer-{os.getuid()}" / "data"
    assert len([path for path in cached.iterdir() if path.is_dir()]) == 1, "it has fetched the dataset"
    for folder in ("data", "runs"):
        (faces.folder / folder).rename(tmp_path / folder)
    faces.set(cluster__storage=None)
    cluster.close()
    shared_ray = request.getfixturevalue("shared_ray")  # only now: the hosts needed the memory
    for module in FACE:
        faces.run("python", "-m", *module, **shared_ray)
    there = outputs(faces.folder)
    assert len(here) > 20 and {name for name in here if here[name] != there.get(name)} == set()
    assert here.keys() == there.keys()


def _with_faults(cluster: HostCluster, server: subprocess.Popen[str]) -> None:
    prepare, finetune, evaluate, visualize = FACE
    printed = cluster.run(*prepare)
    assert "storing the data of face" in printed
    assert "storing" not in cluster.run(*prepare), "the storage has it"

    def steps() -> int:
        """Of the newest checkpoint."""
        names = [key for key in keys(cluster.first, "cluster/finetune") if key.endswith("manifest.json")]
        return max((int(name.split("step-")[1][:8]) for name in names if "step-" in name), default=0)

    def reached(step: int) -> Callable[[], bool]:
        return lambda: steps() >= step or training.poll() is not None

    training = cluster.start(*finetune)
    wait_until(reached(2), "checkpoint")
    kill_stage(training)  # the driver: the same command goes on
    first = steps()
    assert 2 <= first < 8
    training = cluster.start(*finetune)
    wait_until(reached(first + 1), "checkpoint after the driver was killed")

    for child in psutil.Process(server.pid).children():
        child.send_signal(signal.SIGSTOP)
    time.sleep(20)
    for child in psutil.Process(server.pid).children():
        child.send_signal(signal.SIGCONT)
    second = steps()
    wait_until(reached(second + 1), "checkpoint after the storage was away")
    assert training.poll() is None and steps() < 10, "there is something left to do"

    cluster.replace_second()
    printed = cluster.finish(training, *finetune)
    assert "resumed after step" in printed
    cluster.run(*evaluate)
    cluster.run(*visualize)

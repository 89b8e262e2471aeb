"""The whole graph on a cluster of two hosts that share an S3 server and nothing else: neither files, nor processes, nor
memory. A third host, which is not part of the cluster, submits it and gets the results. Where namespaces are refused,
hosts are folders (tests/hosts.py)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.training.faults import VARIABLE
from tests.conftest import Workplace
from tests.hosts import KEYS, S3_PORT, Host, connect, keys, new_host, s3_server, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.long, pytest.mark.early]
PORT, DASHBOARD, AGENT = 26511, 28511, 28611
TMP = Path("/tmp")
FACE = "stages.finetune face"


class HostCluster:
    """A Ray of two hosts, and a third host that reaches the dashboard.

    Args:
        place: the repository of the third host; the others do not see it.
        folder: for the hosts' own files.
    """

    def __init__(self, place: Workplace, folder: Path) -> None:
        self._place, self._folder = place, folder
        self.printed: dict[str, list[str]] = {}
        self._token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
        self.first = new_host("first", 1, folder, (TMP,))
        self._ray = {
            **self._token,
            **KEYS,
            "AWS_ENDPOINT_URL": f"http://{self.first.address}:{S3_PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": self.first.interface,
            VARIABLE: "slow:0:1",  # so that there is time to disturb a training
        }
        self.second = self._new_second()
        self.third = new_host("third", 3, folder, ())
        connect(self.first, self.third)

    def begin(self) -> None:
        """Start Ray on the first two hosts."""
        dashboard = ("--dashboard-host", self.first.address, "--dashboard-port", str(DASHBOARD))
        self._head = self._start_ray(self.first, "--head", "--port", str(PORT), *dashboard)
        self._join_second()

    def _new_second(self) -> Host:
        host = new_host("second", 2, self._folder, (TMP,))
        if host.is_isolated:
            hidden = not host_sees(host, self._place.folder / "params.yaml")
            assert hidden, "put the temporary files of tests below /tmp"
        connect(self.first, host)
        return host

    def _start_ray(self, host: Host, *more: str) -> subprocess.Popen[str]:
        agent = str(AGENT + (host is not self.first))  # where both hosts have one network
        where = ("--node-ip-address", host.address, "--num-cpus", "1", "--dashboard-agent-listen-port", agent)
        process = host.start("ray", "start", "--block", *where, *more, **self._ray)
        self._read(process, f"ray on {host.name}")
        return process

    def _join_second(self) -> None:
        probe = f"import socket; socket.create_connection(('{self.first.address}', {PORT}), 1)"

        def head_answers() -> bool:
            process = self.second.start("python", "-c", probe)
            process.communicate()
            assert self._head.poll() is None, "".join(self.printed["ray on first"])
            return process.returncode == 0

        wait_until(head_answers, "head of Ray")
        self._start_ray(self.second, "--address", f"{self.first.address}:{PORT}")

        def has_joined() -> bool:
            assert self._head.poll() is None, "".join(self.printed["ray on first"])
            return any("Ray runtime started" in line for line in self.printed["ray on second"])

        wait_until(has_joined, "second node")

    def submit(self, *command: str) -> Submission:
        """Submit a command from the third host."""
        address = f"http://{self.first.address}:{DASHBOARD}"
        process = self.third.start(
            *("python", "-m", "stages.cli", "submit", "--address", address, *command),
            cwd=self._place.folder,
            **self._token,
            HOME=str(self._folder),
        )
        name = f"submit {len(self.printed)}: {' '.join(command)}"
        self._read(process, name)
        return Submission(process, self.printed[name])

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

    def kill_on_first(self, command: str) -> None:
        """Kill the processes of the first host whose command line contains `command`."""
        killed = 0
        for process in self.first.processes():
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if command in " ".join(process.cmdline()):
                    process.kill()
                    killed += 1
        assert killed

    def close(self) -> None:
        """End all hosts."""
        for host in (self.third, self.second, self.first):
            host.kill()


class Submission:
    """A command that the third host has submitted, and what it prints."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self._process, self._lines = process, lines

    @property
    def text(self) -> str:
        """What it has printed."""
        return "".join(self._lines)

    def end(self, succeeds: bool = True) -> str:
        """Wait for it; returns what it printed."""
        status = self._process.wait(timeout=1200)
        assert (status == 0) == succeeds and "Traceback" not in self.text, self.text
        return self.text

    def has_ended(self) -> bool:
        return self._process.poll() is not None


def host_sees(host: Host, path: Path) -> bool:
    process = host.start("test", "-e", str(path))
    process.communicate()
    return process.returncode == 0


@pytest.fixture
def repository(workplace: Workplace) -> Workplace:
    """A committed repository, whose training of faces has ten steps with as many checkpoints."""
    settings = {"epochs": 10, "checkpoint_every": 1, "validate_every": 5, "log_every": 1}
    workplace.set(
        cluster__workers=2,
        cluster__storage="s3://bucket/cluster",
        **{f"sample__finetune__face__training__{name}": value for name, value in settings.items()},
    )
    workplace.run("git", "init", "--quiet")
    workplace.run("dvc", "init", "--quiet")
    workplace.run("git", "add", "-A")
    workplace.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "sent")
    return workplace


@pytest.fixture
def cluster(repository: Workplace, tmp_path: Path) -> Iterator[HostCluster]:
    cluster = HostCluster(repository, tmp_path / "hosts")
    try:
        cluster.begin()
        yield cluster
    finally:
        for name, lines in cluster.printed.items():  # shown where the test fails
            print(f"== {name}", *lines[-30:], sep="\n")
        cluster.close()


def test_a_submitted_graph_with_faults_equals_one_machine(
    repository: Workplace, cluster: HostCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with s3_server(cluster.first) as server:
        _graph_with_faults(cluster, server)
        assert "up to date" in repository.run("dvc", "status"), "the third host has all results"
        if cluster.second.is_isolated:  # else it finds them on the disk
            fetched = tmp_path / "hosts/second/0" / f"tcformer-{os.getuid()}" / "data"
            assert sum(path.is_dir() for path in fetched.iterdir()) == 4, "the second has fetched each dataset"
        _without_the_second(repository, cluster)
    cluster.close()

    repository.run("git", "clone", "--quiet", ".", str(tmp_path / "one machine"))
    alone = Workplace(tmp_path / "one machine")
    alone.set(cluster__storage=None)
    alone.run("dvc", "repro", **request.getfixturevalue("shared_ray"))  # only now: the hosts needed the memory
    locks = [yaml.safe_load((place.folder / "dvc.lock").read_text()) for place in (repository, alone)]
    assert len(locks[0]["stages"]) == 17 and locks[0] == locks[1]


def _graph_with_faults(cluster: HostCluster, server: subprocess.Popen[str]) -> None:
    """The driver is killed, the storage is away, a node is lost and comes back."""
    isolated = cluster.first.is_isolated  # else doctor finds that the hosts listen on loopback addresses
    graph = cluster.submit(*(() if isolated else ("--no-doctor",)), "--", "dvc", "repro")
    wait_until(lambda: _steps(cluster) >= 2 or graph.has_ended(), "checkpoint")
    cluster.kill_on_first(FACE)
    printed = graph.end(succeeds=False)
    assert ("0 problems" in printed or not isolated) and "checked out: " in printed, printed
    first = _steps(cluster)
    assert 2 <= first < 7

    graph = cluster.submit("--no-doctor", "--", "dvc", "repro")

    def reached(step: int) -> Callable[[], bool]:
        return lambda: _steps(cluster) >= step or graph.has_ended()

    wait_until(reached(first + 1), "checkpoint after the driver was killed")
    servers = psutil.Process(server.pid).children() or [psutil.Process(server.pid)]  # it enters its host, or is there
    for process in servers:
        process.suspend()
    time.sleep(20)
    for process in servers:
        process.resume()
    wait_until(reached(_steps(cluster) + 1), "checkpoint after the storage was away")
    assert not graph.has_ended() and _steps(cluster) < 10, "there is something left to do"
    cluster.replace_second()
    printed = graph.end()
    assert printed.count("resumed after step") == 2 and "goes on with" not in printed, printed


def _without_the_second(repository: Workplace, cluster: HostCluster) -> None:
    """The second host is lost for good; the training goes on with one worker."""
    before = repository.folder.joinpath("params.yaml").read_text()
    repository.set(cluster__workers={"min": 1, "max": 2})
    training = cluster.submit("--no-doctor", "--", "python", "-m", *FACE.split(), "--fresh")
    wait_until(lambda: "2 cpu workers" in training.text or training.has_ended(), "training")
    wait_until(lambda: _steps(cluster) >= 1 or training.has_ended(), "checkpoint")
    cluster.second.kill()
    printed = training.end()
    lost = f"goes on with 1 of 2 workers; node {cluster.second.address} was lost"
    assert lost in printed and "1 cpu worker " in printed, printed
    repository.folder.joinpath("params.yaml").write_text(before)


def _steps(cluster: HostCluster) -> int:
    """Of the newest checkpoint of faces in the storage."""
    names = [key for key in keys(cluster.first, "cluster/finetune-face") if key.endswith("manifest.json")]
    return max((int(name.split("step-")[1][:8]) for name in names if "step-" in name), default=0)

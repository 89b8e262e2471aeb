"""Hosts on this machine, each with a network, processes and files of its own: namespaces of Linux, which need root.

Where namespaces are refused there are hosts that only have an address and folders of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from tests.imports import ROOT

REQUIRED = "TCFORMER_TEST_HOSTS"  # 1: hosts must be in namespaces, 0: they must not
INTERFACE = "eth0"
S3_PORT = 9000
#: Runs an S3 server with the bucket "bucket" until it is killed; its objects are in its memory.
SERVER = """
import logging, sys, time
logging.disable()  # nobody reads it, and a full pipe would stop the server
from moto.server import ThreadedMotoServer
ThreadedMotoServer(ip_address="0.0.0.0", port=int(sys.argv[1]), verbose=False).start()
import boto3
address = f"http://127.0.0.1:{sys.argv[1]}"
options = dict(region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
boto3.client("s3", endpoint_url=address, **options).create_bucket(Bucket="bucket")
print("ready", flush=True)
time.sleep(1e6)
"""
#: Variables of the libraries that compute (`pipelines.training.instruction_sets`).
_CHOOSE_CODE = ("ATEN_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_")
#: Folders that a host sees wherever they are: the environment that all machines of a cluster have.
NEEDED = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class Host:
    """A host; `connect` connects its network.

    Args:
        name: of its folder.
        number: last byte of its IP address.
        folder: below which its private files are; they stay when the host is killed, as on a disk.
        hidden: folders of this machine that the host does not see, apart from those `NEEDED`: it has empty ones there,
            which it can write to.
    """

    interface: str = INTERFACE
    is_isolated = True

    def __init__(self, name: str, number: int, folder: Path, hidden: tuple[Path, ...]) -> None:
        self.name, self.address = name, f"10.77.0.{number}"
        script = []
        for number, place in enumerate(hidden):
            own = folder / name / str(number)
            own.mkdir(parents=True, exist_ok=True)
            for shown in NEEDED:
                if shown.is_relative_to(place):
                    (own / shown.relative_to(place)).mkdir(parents=True, exist_ok=True)
                    script.append(f"mount --bind '{shown}' '{own / shown.relative_to(place)}'")
            script.append(f"mount --rbind '{own}' '{place}'")
        script += ["ip link set lo up", "echo ready", "exec cat"]  # until this process ends, however it ends
        unshare = ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]
        self._process = subprocess.Popen(
            [*unshare, "--kill-child", "sh", "-ec", "\n".join(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.pid = psutil.Process(self._process.pid).children()[0].pid

    def start(self, *command: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """Start a command on the host, with this environment alone."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", f"--wdns={cwd or '/'}", "--"]
        return _start([*enter, *command], None, environment)

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid")

        def is_own(process: psutil.Process) -> bool:
            with suppress(OSError):  # it has ended meanwhile
                return os.readlink(f"/proc/{process.pid}/ns/pid") == own
            return False

        return [process for process in psutil.process_iter() if is_own(process)]

    def kill(self) -> None:
        """End all its processes at once, as when its power fails."""
        if self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children():
                child.kill()
            self._process.wait()


class FolderHost(Host):
    """A host without namespaces: an address of the loopback network, and a home and temporary folder of its own.

    It sees the files and processes of this machine, but nothing of it looks for them.
    """

    interface = "lo"
    is_isolated = False

    def __init__(self, name: str, number: int, folder: Path, hidden: tuple[Path, ...]) -> None:
        self.name, self.address = name, f"127.77.0.{number}"
        self._place = folder / name / "0"
        self._place.mkdir(parents=True, exist_ok=True)
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """Start a command on the host, with this environment alone."""
        own = {
            "HOME": str(self._place),
            "TMPDIR": str(self._place),
            "RAY_TMPDIR": f"/tmp/hosts-{os.getpid()}",  # the paths of Ray's sockets are short, and of one folder
        }
        process = _start(command, cwd or self._place, {**own, **environment})
        self._started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        found = []
        for started in self._started:
            with suppress(psutil.NoSuchProcess):
                if started.poll() is None:
                    process = psutil.Process(started.pid)
                    found += [process, *process.children(recursive=True)]
        return found

    def kill(self) -> None:
        """End all its processes at once, as when its power fails."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _start(command: Sequence[str], cwd: Path | None, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    tools = str(Path(sys.executable).parent)
    base = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "HOME": "/tmp", "LANG": "C.UTF-8"}
    base["DVC_NO_ANALYTICS"] = "1"  # as in tests/conftest.py
    # Libraries choose the same code for the CPU as in the test's own process: results are compared bit for bit.
    base |= {name: value for name, value in os.environ.items() if name.startswith(_CHOOSE_CODE)}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**base, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def new_host(name: str, number: int, folder: Path, hidden: tuple[Path, ...]) -> Host:
    """A host as isolated as this machine allows; see `Host`."""
    return (FolderHost if why_not_isolated() else Host)(name, number, folder, hidden)


def connect(first: Host, second: Host) -> None:
    """Connect the networks of two hosts; that of the first stays up when the second is killed, for its successor."""
    if not first.is_isolated:
        return
    enter = "nsenter --target {} --net sh -ec '{}'".format
    switch = (
        f"ip link show {INTERFACE} > /dev/null 2>&1 || "
        f"{{ ip link add {INTERFACE} type bridge; ip addr add {first.address}/24 dev {INTERFACE}; }}; "
        f"ip link set {INTERFACE} up; ip link set cable{second.pid} master {INTERFACE} up"
    )
    for command in (
        f"ip link add cable{second.pid} netns {first.pid} type veth peer name {INTERFACE} netns {second.pid}",
        enter(first.pid, switch),
        enter(second.pid, f"ip addr add {second.address}/24 dev {INTERFACE}; ip link set {INTERFACE} up"),
    ):
        subprocess.run(["sh", "-ec", command], check=True)


@cache
def why_not_isolated() -> str | None:
    """Why this machine cannot have hosts in namespaces; None if it can.

    Raises:
        RuntimeError: it cannot, and the variable `REQUIRED` is 1, as in CI.
    """
    reason = _missing()
    if reason and os.environ.get(REQUIRED) == "1":
        raise RuntimeError(f"{REQUIRED}=1, but a host {reason}")
    return reason


def _missing() -> str | None:
    if os.environ.get(REQUIRED) == "0":
        return f"was not wanted, because {REQUIRED}=0"
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return "needs root, and the tools unshare, nsenter and ip"
    kinds = (f"ip link add {name} type {name}" for name in ("veth", "bridge"))
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-ec", "; ".join(kinds)],
        capture_output=True,
        text=True,
    )
    return f"needs namespaces: {trial.stderr.strip()}" if trial.returncode else None


@contextmanager
def s3_server(host: Host) -> Iterator[subprocess.Popen[str]]:
    """An S3 server on the host, at `S3_PORT`."""
    process = host.start(sys.executable, "-c", SERVER, str(S3_PORT))
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line == "ready\n":
                break
        else:
            raise AssertionError("".join(lines))
        yield process
    finally:
        process.kill()


def keys(host: Host, prefix: str) -> list[str]:
    """Keys in the bucket of the S3 server on the host."""
    program = (
        "import re, sys, urllib.request; "
        "text = urllib.request.urlopen(sys.argv[1], timeout=30).read().decode(); "
        "print(*re.findall('<Key>(.*?)</Key>', text), sep='\\n')"
    )
    address = f"http://127.0.0.1:{S3_PORT}/bucket?list-type=2&prefix={prefix}"
    printed, _ = host.start(sys.executable, "-c", program, address).communicate()
    return printed.split()


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait until `ready` returns True."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.5)

"""What `tcformer doctor` asks each node: a probe runs on the node, or in this process if there is no cluster."""

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipelines.adapters.storage import Store
from pipelines.provenance import CODE, sha256_of_sources, versions
from tcformer.errors import UserError
from tcformer.files import temporary_folder

CONNECT_SECONDS = 5.0
LISTEN_SECONDS = 120.0  # for which a probe answers the others


@dataclass(frozen=True)
class NodeFacts:
    """One node as its probe sees it.

    Attributes:
        host: its name.
        address: by which the other nodes reach it.
        versions: of Python and of packages.
        code: the first letters of a hash of this project's sources, which a commit alone does not tell.
        gpus: name of each GPU.
        gpu_fault: why the GPUs cannot be used; "" otherwise.
        name_leads_to: address that the node's own name leads to, "" if to none: what gloo listens on by default.
        interfaces: name -> IPv4 addresses of each network interface that is up.
        named_interfaces: value of each variable that names the interfaces of gloo and NCCL, where it is set.
        free: folder -> free bytes.
        unwritable: folder -> why it cannot be written.
        shared_memory: bytes of /dev/shm; None where there is no such folder.
        memory: bytes.
        cores: number of CPU cores that may be used.
        open_files: the limit of a process.
    """

    host: str
    address: str
    versions: dict[str, str]
    code: str
    gpus: list[str]
    gpu_fault: str
    name_leads_to: str
    interfaces: dict[str, list[str]]
    named_interfaces: dict[str, str]
    free: dict[str, int] = field(default_factory=dict)
    unwritable: dict[str, str] = field(default_factory=dict)
    shared_memory: int | None = None
    memory: int = 0
    cores: int = 0
    open_files: int = 0


class Probe:
    """Answers questions about the node that it runs on.

    Args:
        address: by which the other nodes reach this one.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def facts(self) -> NodeFacts:
        """All that needs no other node."""
        gpus, fault = _gpus()
        free: dict[str, int] = {}
        unwritable: dict[str, str] = {}
        for folder in _folders(unwritable):
            try:
                trial = folder / f".doctor-{uuid.uuid4().hex[:8]}"
                trial.write_bytes(b"x")
                trial.unlink()
                free[str(folder)] = shutil.disk_usage(folder).free
            except OSError as error:
                unwritable[str(folder)] = error.strerror or str(error)
        shared = Path("/dev/shm")
        return NodeFacts(
            host=socket.gethostname(),
            address=self._address,
            versions=versions(),
            code=sha256_of_sources(CODE)[:12],
            gpus=gpus,
            gpu_fault=fault,
            name_leads_to=_own_name_leads_to(),
            interfaces=_interfaces(),
            named_interfaces={
                name: os.environ[name] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if os.environ.get(name)
            },
            free=free,
            unwritable=unwritable,
            shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else None,
            memory=psutil.virtual_memory().total,
            cores=len(os.sched_getaffinity(0)),
            open_files=_open_files(),
        )

    def clock(self) -> float:
        """Seconds since 1970 by this node's clock."""
        return time.time()

    def sees(self, path: str) -> bool:
        """Whether this node sees a file of the driver, on a disk that both share."""
        return Path(path).is_file()

    def listen(self) -> int:
        """Accept connections for a while, on a port that the system chooses, as gloo and NCCL do; returns the port."""
        server = socket.create_server(("", 0), backlog=256)
        server.settimeout(LISTEN_SECONDS)
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        return int(server.getsockname()[1])

    def connect(self, others: Sequence[tuple[str, int]]) -> dict[str, str]:
        """Connect to other nodes; returns address -> fault for those that cannot be reached."""
        faults = {}
        for address, port in others:
            try:
                socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
            except OSError as error:
                faults[address] = error.strerror or str(error)
        return faults

    def store(self, storage: str) -> str:
        """Write, read and remove a small file in the storage; returns what went wrong, "" if nothing."""
        folder = f"doctor-{uuid.uuid4().hex[:12]}"
        try:
            store = Store(storage)
            store.write(f"{folder}/file", b"tcformer")
            found = store.read(f"{folder}/file")
            store.delete(folder)
        except Exception as error:  # of many libraries
            return " ".join(str(error).split())[:400] or type(error).__name__
        return "" if found == b"tcformer" else "a file that was written had other bytes when it was read"


def _folders(unwritable: dict[str, str]) -> list[Path]:
    """Folders in which stages write on every node: data and checkpoints of the store, and Ray's objects."""
    try:
        return [temporary_folder("data")]
    except UserError as error:
        unwritable["the folder for temporary files"] = str(error)
        return []


def _accept(server: socket.socket) -> None:
    with server:
        while True:
            try:
                server.accept()[0].close()
            except OSError:  # the time is over
                return


def _gpus() -> tuple[list[str], str]:
    """Names of the GPUs, and why they cannot be used."""
    import torch

    try:
        if not torch.cuda.is_available():
            devices = any(Path("/dev").glob("nvidia[0-9]*"))
            return [], "the node has NVIDIA devices, and PyTorch sees none" if devices else ""
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        torch.zeros(1, device="cuda")
        return names, ""
    except Exception as error:  # of the driver
        return [], " ".join(str(error).split())[:200]


def _own_name_leads_to() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def _interfaces() -> dict[str, list[str]]:
    up = {name for name, about in psutil.net_if_stats().items() if about.isup}
    return {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
        if name in up
    }


def _open_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

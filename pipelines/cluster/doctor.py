"""`tcformer doctor`: check every node of a cluster before anything starts; each problem is named with its fix."""

import ipaddress
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from pipelines.adapters.mlflow import tracking_uri
from pipelines.adapters.nodes import Answers, on_every_node
from pipelines.adapters.ray import session
from pipelines.cluster.probe import CONNECT_SECONDS, NodeFacts, Probe
from pipelines.layout import Layout
from pipelines.params import Cluster, Params
from pipelines.provenance import NOT_INSTALLED
from pipelines.running.process import runs_locally
from pipelines.running.redaction import redacted

LARGEST_SKEW = 5.0  # seconds between two clocks; S3 refuses requests at 900
LEAST_FREE = 10 << 30  # bytes of disk
LEAST_SHARED_MEMORY = 1 << 30  # bytes of /dev/shm
LEAST_OPEN_FILES = 4096
ANSWER_SECONDS = 90.0
HERE = "this machine"
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was checked.
        text: what was found.
        fix: what to do; "" if all is well.
    """

    topic: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        if self.fix:
            return f"problem  {self.topic}: {self.text}\n         -> {self.fix}"
        return f"ok       {self.topic}: {self.text}"


class Asked(Protocol):
    """Probes that answer: those of a cluster, or one in this process."""

    @property
    def addresses(self) -> list[str]:
        """Of the nodes."""
        ...

    @property
    def resources(self) -> dict[str, float]:
        """Cores ("CPU") and GPUs ("GPU") for workers."""
        ...

    def ask(self, questions: Mapping[str, Callable[[Probe], T]]) -> Answers[T]:
        """Put a question to each named node."""
        ...


class ThisMachine:
    """A probe in this process."""

    addresses = [HERE]  # noqa: RUF012
    resources: dict[str, float] = {}  # noqa: RUF012 - the Ray that a stage starts here has as many cores as it needs

    def ask(self, questions: Mapping[str, Callable[[Probe], T]]) -> Answers[T]:
        """Answer the question."""
        return Answers({node: question(Probe("127.0.0.1")) for node, question in questions.items()})


def examine(params: Params) -> list[Finding]:
    """Check the cluster that `cluster.address` or RAY_ADDRESS names; without one, this machine.

    Raises:
        UserError: the cluster cannot be joined.
    """
    address = params.cluster.address or os.environ.get("RAY_ADDRESS")
    if not address or runs_locally():
        return list(findings(ThisMachine(), params))
    with session(params.cluster), on_every_node(Probe, ANSWER_SECONDS) as nodes:
        return list(findings(nodes, params))


def findings(nodes: Asked, params: Params) -> Iterator[Finding]:
    """Ask all nodes and judge the answers."""
    answers = nodes.ask(dict.fromkeys(nodes.addresses, Probe.facts))
    for node, fault in answers.faults.items():
        yield Finding(
            "node", f"{node} does not answer ({fault})", "make its environment that of the head, or remove it"
        )
    facts = answers.by_node
    if not facts:
        return
    here = facts[HERE] if HERE in facts else Probe("127.0.0.1").facts()
    yield from check_machines(facts)
    yield from check_versions(facts, here)
    yield from check_resources(nodes.resources, params.cluster)
    if len(facts) > 1:
        yield from check_interfaces(facts)
        yield from check_connections(nodes, list(facts), facts)
        yield from check_clocks(nodes, list(facts))
    yield from check_storage(nodes, list(facts), params)
    yield check_tracking(tracking_uri())


def check_machines(facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """GPUs, disk, shared memory and limits of each node."""
    kinds = Counter(name for node in facts.values() for name in node.gpus)
    cores = sum(node.cores for node in facts.values())
    gpus = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "no GPUs"
    yield Finding("nodes", f"{len(facts)} with {cores} cores, {gpus}")
    for name, node in facts.items():
        if node.gpu_fault:
            yield Finding(
                "GPUs", f"{name}: {node.gpu_fault}", "install a driver that fits PyTorch's CUDA; see `nvidia-smi` there"
            )
        for folder, fault in node.unwritable.items():
            yield Finding("disk", f"{name}: {folder} cannot be written ({fault})", "set TMPDIR to a folder that can be")
        for folder, free in node.free.items():
            if free < LEAST_FREE:
                yield Finding(
                    "disk", f"{name}: {folder} has {free / 1e9:.0f} GB free",
                    f"free some space there, or set TMPDIR to a disk with {LEAST_FREE >> 30} GB",
                )  # fmt: skip
        if node.shared_memory is not None and node.shared_memory < LEAST_SHARED_MEMORY:
            yield Finding(
                "shared memory", f"{name}: /dev/shm has {node.shared_memory >> 20} MB",
                "start the container with --shm-size=8g, or mount an emptyDir of medium Memory there",
            )  # fmt: skip
        if node.open_files < LEAST_OPEN_FILES:
            yield Finding(
                "open files", f"{name}: a process may open {node.open_files}", "`ulimit -n 65536` before `ray start`"
            )
    least = min((free for node in facts.values() for free in node.free.values()), default=0)
    if least >= LEAST_FREE:
        yield Finding("disk", f"at least {least / 1e9:.0f} GB free for data and caches")


def check_versions(facts: Mapping[str, NodeFacts], here: NodeFacts) -> Iterator[Finding]:
    """Python, packages and this project's code are the same on all nodes and here."""
    wrong = False
    for name, node in facts.items():
        differing = [
            f"{package} {version} (here {here.versions[package]})"
            for package, version in node.versions.items()
            if version != here.versions[package] or version == NOT_INSTALLED
        ]
        if differing:
            wrong = True
            yield Finding("versions", f"{name}: {', '.join(differing)}", "install constraints.txt of this commit there")
        if node.code != here.code:
            wrong = True
            yield Finding(
                "code", f"{name} runs other code of this project than this process ({node.code}, here {here.code})",
                "join the Ray as `tcformer submit` does, so that Ray sends the code; remove an installed tcformer",
            )  # fmt: skip
    if not wrong:
        shown = ("python", "torch", "ray", "deepspeed")
        packages = ", ".join(f"{package} {here.versions[package]}" for package in shown)
        yield Finding("versions", f"{packages}; code {here.code}" + " on all nodes" * (len(facts) > 1))


def check_resources(resources: Mapping[str, float], cluster: Cluster) -> Iterator[Finding]:
    """There are enough GPUs or cores for the workers."""
    if not resources:
        return
    kind = "GPU" if resources.get("GPU") else "CPU"
    need = cluster.fewest_workers * (1 if kind == "GPU" else cluster.cpus_per_worker)
    have = resources.get(kind, 0)
    text = f"cluster.workers asks for {need} {kind}s, Ray has {have:g}"
    yield Finding("workers", text, "" if have >= need else "lower cluster.workers in params.yaml, or add nodes")


def check_interfaces(facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """gloo and NCCL choose an interface by which the other nodes reach the node."""
    wrong = False
    for name, node in facts.items():
        right = _reached_interface(node)
        for variable, value in node.named_interfaces.items():
            if not _named(value, list(node.interfaces)):
                wrong = True
                yield Finding(
                    "interfaces", f"{name}: {variable}={value}, and the node has {', '.join(sorted(node.interfaces))}",
                    f"set {variable}={right} before `ray start`",
                )  # fmt: skip
        if "GLOO_SOCKET_IFNAME" not in node.named_interfaces and node.name_leads_to != node.address:
            if _name_leads_to_interface(node):
                continue  # another interface, which `check_connections` tries
            wrong = True
            yield Finding(
                "interfaces",
                f"{name}: its name {node.host} leads to {node.name_leads_to or 'no address'}, where gloo would listen; "
                f"the others reach it at {node.address}",
                f"`export GLOO_SOCKET_IFNAME={right}` before `ray start` there, or correct /etc/hosts",
            )
    for address, names in _shared(facts).items():
        wrong = True
        right = ", ".join(sorted({_reached_interface(facts[name]) for name in names}))
        yield Finding(
            "interfaces", f"{', '.join(names)} would all listen on {address}, where none reaches another",
            f"set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to {right} before `ray start`, or correct /etc/hosts",
        )  # fmt: skip
    if not wrong:
        yield Finding("interfaces", "gloo listens where the other nodes reach it")


def _reached_interface(node: NodeFacts) -> str:
    """The interface at which the other nodes reach the node."""
    return next((interface for interface, addresses in node.interfaces.items() if node.address in addresses), "NAME")


def _name_leads_to_interface(node: NodeFacts) -> bool:
    """Whether the node's name leads to an interface of the node that is not the loopback."""
    known = any(node.name_leads_to in addresses for addresses in node.interfaces.values())
    return known and not ipaddress.ip_address(node.name_leads_to).is_loopback


def _addresses(node: NodeFacts) -> list[str]:
    """IPv4 addresses on which gloo and NCCL would listen, as far as it is known, and the node's own."""
    found = [
        address
        for value in node.named_interfaces.values()
        for interface in _named(value, list(node.interfaces))
        for address in node.interfaces[interface]
        if not (value.startswith("^") and ipaddress.ip_address(address).is_loopback)  # NCCL leaves it out by itself
    ]
    if "GLOO_SOCKET_IFNAME" not in node.named_interfaces and _name_leads_to_interface(node):
        found.append(node.name_leads_to)
    return list(dict.fromkeys([node.address, *found]))


def _shared(facts: Mapping[str, NodeFacts]) -> dict[str, list[str]]:
    """Addresses, for instance of Docker's bridge, on which several nodes would listen -> these nodes."""
    nodes: dict[str, list[str]] = {}
    for name, node in facts.items():
        for address in _addresses(node):
            nodes.setdefault(address, []).append(name)
    return {address: names for address, names in nodes.items() if len(names) > 1}


def _named(value: str, interfaces: list[str]) -> list[str]:
    """The interfaces that a list of beginnings of names means, as gloo and NCCL read it."""
    if value.startswith("^"):  # NCCL: all but these
        excluded = tuple(value.lstrip("^=").split(","))
        return [interface for interface in interfaces if not interface.startswith(excluded)]
    exact = value.startswith("=")
    names = [name.partition(":")[0] for name in value.lstrip("=").split(",")]
    return [i for i in interfaces if any(i == name or (not exact and i.startswith(name)) for name in names)]


def check_connections(nodes: Asked, names: list[str], facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """Every node can connect to every other one, at all addresses of `_addresses`, on ports that the system chooses."""
    ports = nodes.ask(dict.fromkeys(names, Probe.listen)).by_node
    shared, own = _shared(facts), {node.address for node in facts.values()}
    targets = {
        other: [(address, ports[other]) for address in _addresses(facts[other]) if address not in shared]
        for other in ports
    }
    questions = {
        name: partial(Probe.connect, others=[place for other in targets if other != name for place in targets[other]])
        for name in names
    }
    answers = nodes.ask(questions)
    faults: list[str] = []
    of_interfaces: list[str] = []
    for name, found in answers.by_node.items():
        for address, fault in found.items():
            (faults if address in own else of_interfaces).append(f"{name} cannot reach {address} ({fault})")
    faults += [f"{name} does not answer ({fault})" for name, fault in answers.faults.items()]
    if faults:
        yield Finding(
            "connections", _few(faults),
            "open all TCP ports between the nodes in their firewalls or security group, and no port to others",
        )  # fmt: skip
    if of_interfaces:
        yield Finding(
            "connections", f"{_few(of_interfaces)}, where gloo or NCCL would listen",
            "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to an interface that the other nodes reach before `ray "
            "start`, or correct /etc/hosts",
        )  # fmt: skip
    if not faults and not of_interfaces:
        yield Finding("connections", f"each of {len(names)} nodes reaches the others on a port that the system chose")


def _few(faults: list[str]) -> str:
    return "; ".join(faults[:8]) + (f" and {len(faults) - 8} more" if len(faults) > 8 else "")


def check_clocks(nodes: Asked, names: list[str]) -> Iterator[Finding]:
    """The clocks agree; the way to the node and back is the error of the measurement."""
    skews = {}
    for name in names:
        asked = time.time()
        answer = nodes.ask({name: Probe.clock}).by_node.get(name)
        answered = time.time()
        if answer is not None:
            away = max(0.0, abs(answer - (asked + answered) / 2) - (answered - asked) / 2)
            skews[name] = away
    wrong = {name: skew for name, skew in skews.items() if skew > LARGEST_SKEW}
    for name, skew in wrong.items():
        yield Finding(
            "clock", f"{name} is {skew:.0f} s away from this machine", "start chrony or another NTP client there"
        )
    if not wrong:
        yield Finding("clocks", f"within {max(skews.values(), default=0.0):.1f} s of this machine")


def check_storage(nodes: Asked, names: list[str], params: Params) -> Iterator[Finding]:
    """Every node can write, read and delete in `cluster.storage`, or sees this machine's disk."""
    storage = params.cluster.storage
    if storage:
        answers = nodes.ask({name: partial(Probe.store, storage=storage) for name in names})
        faults = {**answers.faults, **{name: fault for name, fault in answers.by_node.items() if fault}}
        if HERE not in names:
            fault = Probe("127.0.0.1").store(storage)
            faults |= {HERE: fault} if fault else {}
        for name, fault in faults.items():
            yield Finding(
                "storage", f"{name}: {redacted(fault)}",
                "give each node credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role) and its endpoint, "
                "or correct cluster.storage",
            )  # fmt: skip
        if not faults:
            yield Finding("storage", f"{redacted(storage)} can be written and read from every node")
        return
    with _marker(Layout(params.recipe)) as path:
        blind = [
            name
            for name, sees in nodes.ask({n: partial(Probe.sees, path=path) for n in names}).by_node.items()
            if not sees
        ]
    if blind:
        yield Finding(
            "storage", f"cluster.storage is null, and {', '.join(blind)} cannot read this machine's checkpoints",
            "set cluster.storage to an s3:// or gs:// address or a shared folder, or work on a shared disk",
        )  # fmt: skip
    else:
        yield Finding("storage", "cluster.storage is null: data and checkpoints are on this machine's disk")


@contextmanager
def _marker(layout: Layout) -> Iterator[str]:
    """A file beside the checkpoints while the body runs."""
    path = layout.checkpoints / f".doctor-{uuid.uuid4().hex[:8]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def check_tracking(address: str) -> Finding:
    """The MLflow server answers. It is the driver that writes to it, and no other node."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return Finding("MLflow", f"the database {redacted(address)}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return Finding(
            "MLflow", f"{redacted(address)} cannot be reached from this machine ({error.strerror or error})",
            "start the server, or correct MLFLOW_TRACKING_URI; without it, measurements are kept and sent later",
        )  # fmt: skip
    return Finding("MLflow", f"{redacted(address)} answers")

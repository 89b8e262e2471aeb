"""The doctor's judgement of what nodes answer, and its questions to this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.adapters.nodes import Answers
from pipelines.cluster import doctor
from pipelines.cluster.doctor import HERE, Finding, ThisMachine, findings
from pipelines.cluster.probe import NodeFacts, Probe
from pipelines.params import Params, load_params
from pipelines.provenance import NOT_INSTALLED
from tests.conftest import ROOT

GOOD = NodeFacts(
    host="node-a",
    address="10.0.0.1",
    versions={"python": "3.11.7", "torch": "2.14.1", "ray": "2.60.0", "deepspeed": "0.19.8"},
    code="abc",
    gpus=["NVIDIA H100"] * 8,
    gpu_fault="",
    name_leads_to="10.0.0.1",
    interfaces={"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"]},
    named_interfaces={},
    free={"/tmp/data": 10**12},
    shared_memory=8 << 30,
    memory=10**12,
    cores=64,
    open_files=65536,
)
OTHER = replace(GOOD, host="node-b", address="10.0.0.2", name_leads_to="10.0.0.2", interfaces={"eth0": ["10.0.0.2"]})


class Machine:
    """Answers as a probe does."""

    def __init__(self, facts: NodeFacts, **answers: Any) -> None:
        self._facts, self._answers = facts, answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        given = self._answers
        usual: dict[str, Any] = {"listen": 4000, "connect": {}, "store": "", "sees": True, "clock": 1000.0}

        def answer(**options: Any) -> Any:
            found = self._facts if name == "facts" else given.get(name, usual[name])
            return found(**options) if callable(found) else found

        return answer


class Nodes:
    """Machines instead of the nodes of a Ray; a fault instead of one that does not answer."""

    def __init__(self, machines: Iterable[Machine | str], gpus: int = 16) -> None:
        self._machines = {f"10.0.0.{index + 1}": machine for index, machine in enumerate(machines)}
        self.addresses = list(self._machines)
        self.resources = {"CPU": 128.0, "GPU": float(gpus)}

    def ask(self, questions: Mapping[str, Callable[[Any], Any]]) -> Answers[Any]:
        answers: Answers[Any] = Answers()
        for node, question in questions.items():
            machine = self._machines[node]
            if isinstance(machine, str):
                answers.faults[node] = machine
                continue
            function = getattr(question, "func", question)
            options = getattr(question, "keywords", {})
            answers.by_node[node] = getattr(machine, function.__name__)(**options)
        return answers


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    monkeypatch.setattr(doctor.time, "time", lambda: 1000.0)
    monkeypatch.setattr(doctor.Probe, "facts", lambda self: GOOD)  # of this process; its name is asked of the machines
    monkeypatch.setattr(doctor, "Layout", lambda recipe: type("Layout", (), {"checkpoints": tmp_path}))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    doctor.Probe.facts.__name__ = "facts"
    return load_params(ROOT / "params.yaml")


def examined(params: Params, *machines: Machine | str, gpus: int = 16, **cluster: Any) -> list[Finding]:
    changed = params.model_copy(update={"cluster": params.cluster.model_copy(update=cluster)})
    return list(findings(Nodes(machines, gpus), changed))


def problems(found: list[Finding]) -> list[str]:
    return [f"{finding.topic}: {finding.text} -> {finding.fix}" for finding in found if finding.fix]


def test_a_good_cluster_has_no_problem(params: Params) -> None:
    found = examined(params, Machine(GOOD), Machine(OTHER))
    assert problems(found) == []
    text = "\n".join(map(str, found))
    assert "ok       nodes: 2 with 128 cores, 16 x NVIDIA H100" in text
    assert "each of 2 nodes reaches the others" in text and "code abc on all nodes" in text


def test_each_problem_is_named_with_its_fix(params: Params) -> None:
    def of(machine: Machine | str, **more: Any) -> str:
        found = problems(examined(params, Machine(GOOD), machine, **more))
        assert len(found) == 1, found
        return found[0]

    def facts(**changes: Any) -> Machine:
        return Machine(replace(OTHER, **changes))

    assert "10.0.0.2 does not answer (no module psutil)" in of("no module psutil")
    older = {**GOOD.versions, "torch": "2.13.0"}
    assert "10.0.0.2: torch 2.13.0 (here 2.14.1) -> install constraints.txt" in of(facts(versions=older))
    absent = {**GOOD.versions, "ray": NOT_INSTALLED}
    assert "10.0.0.2: ray not installed (here 2.60.0)" in of(facts(versions=absent))
    assert "10.0.0.2 runs other code" in of(facts(code="xyz"))
    assert "GPUs: 10.0.0.2: driver too old" in of(facts(gpu_fault="driver too old"))
    assert "has 1 GB free" in of(facts(free={"/tmp": 1 << 30}))
    assert "/data cannot be written (read-only)" in of(facts(unwritable={"/data": "read-only"}))
    assert "/dev/shm has 64 MB -> start the container with --shm-size" in of(facts(shared_memory=64 << 20))
    assert "a process may open 1024" in of(facts(open_files=1024))
    assert "10.0.0.2 is 30 s away" in of(Machine(OTHER, clock=1030.0))
    unreachable = of(Machine(OTHER, connect={"10.0.0.1": "timed out"}))
    assert "10.0.0.2 cannot reach 10.0.0.1 (timed out) -> open all TCP ports between the nodes" in unreachable
    loopback = of(facts(name_leads_to="127.0.1.1"))
    assert "its name node-b leads to 127.0.1.1" in loopback and "GLOO_SOCKET_IFNAME=eth0" in loopback
    assert "GLOO_SOCKET_IFNAME=eth7" in of(facts(named_interfaces={"GLOO_SOCKET_IFNAME": "eth7"}))
    assert "10.0.0.2 cannot read this machine's checkpoints" in of(Machine(OTHER, sees=False))
    assert "asks for 20 GPUs, Ray has 16" in of(facts(), workers=20)


BRIDGE = {"eth0": ["10.0.0.2"], "docker0": ["172.17.0.1"], "eth1": ["192.168.5.2"]}


@pytest.mark.parametrize(
    ("changes", "dialled"),
    [
        ({"named_interfaces": {"GLOO_SOCKET_IFNAME": "docker0"}}, ["10.0.0.2", "172.17.0.1"]),
        ({"named_interfaces": {"NCCL_SOCKET_IFNAME": "^docker,lo"}}, ["10.0.0.2", "192.168.5.2"]),
        ({"name_leads_to": "192.168.5.2"}, ["10.0.0.2", "192.168.5.2"]),
        ({"name_leads_to": "192.168.5.2", "named_interfaces": {"GLOO_SOCKET_IFNAME": "eth0"}}, ["10.0.0.2"]),
    ],
)
def test_the_interfaces_that_gloo_and_nccl_choose_are_dialled(
    changes: dict[str, Any], dialled: list[str], params: Params
) -> None:
    def connect(others: list[tuple[str, int]]) -> dict[str, str]:
        assert others == [(address, 4001) for address in dialled]
        return {address: "timed out" for address, _ in others if address != "10.0.0.2"}

    other = Machine(replace(OTHER, interfaces=BRIDGE, **changes), listen=4001)
    found = problems(examined(params, Machine(GOOD, connect=connect), other))
    if len(dialled) == 1:
        assert not found
    else:
        (text,) = found
        assert f"10.0.0.1 cannot reach {dialled[1]} (timed out), where gloo or NCCL would listen -> set GLOO" in text


@pytest.mark.parametrize(
    "changes", [{"named_interfaces": {"GLOO_SOCKET_IFNAME": "docker0"}}, {"name_leads_to": "172.17.0.1"}]
)
def test_an_address_that_two_nodes_share_is_a_problem(changes: dict[str, Any], params: Params) -> None:
    interfaces = {"eth0": ["10.0.0.1"], "docker0": ["172.17.0.1"]}
    (text,) = problems(
        examined(
            params,
            Machine(replace(GOOD, interfaces=interfaces, **changes)),
            Machine(replace(OTHER, interfaces=BRIDGE, **changes)),
        )
    )
    assert text.startswith("interfaces: 10.0.0.1, 10.0.0.2 would all listen on 172.17.0.1, where none reaches another")
    assert "to eth0 before `ray start`" in text


def test_a_storage_is_asked_from_each_node_and_from_here(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.Probe, "store", lambda self, storage: "")
    doctor.Probe.store.__name__ = "store"
    bad = Machine(OTHER, store="s3://key:secret@bucket: ACCESS_DENIED")
    found = problems(examined(params, Machine(GOOD), bad, storage="s3://bucket/x"))
    assert len(found) == 1 and "10.0.0.2: s3://***@bucket: ACCESS_DENIED" in found[0]
    assert not problems(examined(params, Machine(GOOD), Machine(OTHER), storage="s3://bucket/x"))
    monkeypatch.setattr(doctor.Probe, "store", lambda self, storage: "no credentials")
    doctor.Probe.store.__name__ = "store"
    found = problems(examined(params, Machine(GOOD), storage="s3://bucket/x"))
    assert len(found) == 1 and f"storage: {HERE}: no credentials" in found[0]


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("eth0", True),
        ("eth", True),
        ("=eth0", True),
        ("=eth", False),
        ("ib0", False),
        ("^lo,docker", True),
        ("^eth,lo", False),
    ],
)
def test_names_of_interfaces_are_read_as_nccl_reads_them(value: str, fits: bool) -> None:
    assert ("eth0" in doctor._named(value, ["lo", "eth0"])) is fits


def test_an_mlflow_server_that_is_away_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not doctor.check_tracking(f"http://127.0.0.1:{port}").fix
    assert "cannot be reached" in doctor.check_tracking(f"http://user:secret@127.0.0.1:{port}").text
    assert "secret" not in doctor.check_tracking(f"http://user:secret@127.0.0.1:{port}").text
    assert not doctor.check_tracking("sqlite:///mlflow.db").fix


def test_probes_of_two_nodes_reach_each_other() -> None:
    one, two = Probe("127.0.0.1"), Probe("127.0.0.1")
    port = one.listen()
    assert two.connect([("127.0.0.1", port)]) == {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    assert two.connect([("127.0.0.1", closed)]) == {"127.0.0.1": "Connection refused"}


def test_a_probe_tries_the_store(tmp_path: Path) -> None:
    assert Probe("x").store(str(tmp_path / "store")) == ""
    assert list((tmp_path / "store").iterdir()) == [], "nothing is left"
    (tmp_path / "file").touch()
    assert "cannot be written" in Probe("x").store(str(tmp_path / "file" / "store"))


def test_this_machine_is_examined() -> None:
    nodes = ThisMachine()
    facts = nodes.ask({HERE: Probe.facts}).by_node[HERE]
    assert facts.versions["ray"] != NOT_INSTALLED and len(facts.code) == 12
    assert facts.interfaces["lo"] == ["127.0.0.1"] and facts.cores >= 1 and not facts.unwritable
    assert not list(doctor.check_resources(nodes.resources, load_params(ROOT / "params.yaml").cluster))

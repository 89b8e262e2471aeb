"""Where namespaces are refused, hosts have an address and folders of their own, unless a variable forbids it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests import hosts
from tests.imports import ROOT


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.why_not_isolated.cache_clear()
    monkeypatch.setattr(hosts.os, "geteuid", lambda: 1000)
    monkeypatch.delenv(hosts.REQUIRED, raising=False)


@pytest.fixture(autouse=True, scope="module")
def ask_again() -> None:
    yield
    hosts.why_not_isolated.cache_clear()


def test_missing_namespaces_are_a_reason_unless_they_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "needs root" in str(hosts.why_not_isolated())
    hosts.why_not_isolated.cache_clear()
    monkeypatch.setenv(hosts.REQUIRED, "1")
    with pytest.raises(RuntimeError, match="TCFORMER_TEST_HOSTS=1, but a host needs root"):
        hosts.why_not_isolated()


def test_hosts_without_namespaces_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = (hosts.new_host(name, number, tmp_path, ()) for number, name in enumerate(("a", "b"), 1))
    hosts.connect(first, second)
    program = "import socket, sys, tempfile; socket.create_server((sys.argv[1], 0)); print(tempfile.gettempdir())"
    for host in (first, second):
        printed, _ = host.start(sys.executable, "-c", program, host.address).communicate()
        assert printed == f"{tmp_path / host.name / '0'}\n"
    sleeper = second.start("sh", "-c", "sleep 60 & sleep 60")
    hosts.wait_until(lambda: len(second.processes()) == 3, "children", 10)
    second.kill()
    sleeper.wait()
    hosts.wait_until(lambda: not [p for p in second.processes() if p.status() != psutil.STATUS_ZOMBIE], "end", 10)


def test_ci_requires_them() -> None:
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert f"{hosts.REQUIRED}=1 .venv/bin/python -m pytest tests/stages/test_two_hosts.py" in workflow

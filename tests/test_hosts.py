"""Where namespaces are refused, tests of several hosts are skipped, except where a variable demands them."""

from __future__ import annotations

import pytest

from tests import hosts
from tests.imports import ROOT


def test_missing_hosts_are_a_reason_to_skip_unless_they_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.os, "geteuid", lambda: 1000)
    monkeypatch.delenv(hosts.REQUIRED, raising=False)
    assert "needs root" in str(hosts.why_there_are_none())
    monkeypatch.setenv(hosts.REQUIRED, "1")
    with pytest.raises(RuntimeError, match="TCFORMER_TEST_HOSTS=1, but a host needs root"):
        hosts.why_there_are_none()


def test_ci_requires_them() -> None:
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert f"{hosts.REQUIRED}=1 .venv/bin/python -m pytest tests/stages/test_two_hosts.py" in workflow

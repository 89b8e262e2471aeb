"""The commands of `tcformer` for clusters: their options reach the work behind them, and the page names what exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipelines.adapters import jobs as adapter
from pipelines.adapters.jobs import Job
from pipelines.cluster import doctor as examination
from pipelines.cluster import submit as work
from pipelines.cluster.doctor import Finding
from pipelines.cluster.submit import SubmitOptions
from stages.cli import cli
from tests.conftest import ROOT


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value or 0, result.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands ask of a cluster that exists only here."""
    calls: list[Any] = []

    def noted(name: str, answer: int) -> Callable[..., int]:
        return lambda jobs, *arguments: calls.append((name, *arguments)) or answer

    class Jobs:
        def __init__(self, address: str) -> None:
            calls.append(address)

        def all(self) -> list[Job]:
            return [Job("tcformer-1", "STOPPED", "dvc repro", started=0.0, ended=3723.0), Job("b", "PENDING", "x")]

        def job(self, identity: str) -> Job:
            return Job(identity, "SUCCEEDED", "x")

        def stop(self, identity: str) -> bool:
            return identity == "running"

    monkeypatch.setattr(adapter, "Jobs", Jobs)
    monkeypatch.setattr(work, "submit", noted("submit", 7))
    monkeypatch.setattr(work, "follow", noted("follow", 3))
    monkeypatch.setattr(work, "fetch", noted("fetch", 0))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    return calls


def test_submit_passes_its_options_and_leaves_those_of_the_command(asked: list[Any]) -> None:
    status, _ = call(
        "submit", "--detach", "--no-doctor", "--env", "A=1", "--largest-output", "0.5", "--", "dvc", "repro", "-f"
    )
    assert status == 7
    assert asked == [
        "http://head:8265",
        ("submit", ("dvc", "repro", "-f"), SubmitOptions(True, False, 500_000_000, {"A": "1"})),
    ]
    call("submit", "--address", "http://other:8265", "python", "-m", "stages.prepare", "--check")
    assert asked[2] == "http://other:8265"
    assert asked[3] == ("submit", ("python", "-m", "stages.prepare", "--check"), SubmitOptions())
    with pytest.raises(click.UsageError, match="command"):
        call("submit", "--detach")


def test_jobs_are_listed_followed_fetched_and_stopped(asked: list[Any]) -> None:
    first, second = call("jobs", "list")[1].splitlines()
    assert re.fullmatch(
        r"tcformer-1 +STOPPED +\d\d-\d\d \d\d:\d\d +1:02:03  dvc repro|tcformer-1 +STOPPED +- +0:00:00  dvc repro",
        first,
    )
    assert re.fullmatch(r"b +PENDING +- +0:00:00  x", second)
    assert call("jobs", "follow", "a")[0] == 3
    assert call("jobs", "fetch", "a")[0] == 1, "there were no results"
    assert "running stops: a training takes a checkpoint" in call("jobs", "stop", "running")[1]
    assert "other has ended already" in call("jobs", "stop", "other")[1]


def test_the_doctors_exit_status_says_whether_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("nodes", "2 with 128 cores")]
    monkeypatch.setattr(examination, "examine", lambda params: found)
    status, printed = call("doctor")
    assert status == 0 and "ok       nodes: 2 with 128 cores\n" in printed and "0 problems" in printed
    found.append(Finding("clock", "10.0.0.2 is 30 s away", "start chrony"))
    status, printed = call("doctor")
    assert status == 1 and "problem  clock: 10.0.0.2 is 30 s away\n         -> start chrony\n1 problem" in printed


def test_commands_of_the_page_are_accepted() -> None:
    """Every option exists and accepts its value. The commands are parsed and do not run."""
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    commands = re.findall(r"^tcformer (.*?)(?:  #.*)?$", page, re.MULTILINE)
    commands += [command for command in re.findall(r"`(?:[A-Z_]+=\S+ )?tcformer ([^`]*?)`", page) if " " in command]
    assert len(commands) >= 8
    for command in commands:
        context = click.Context(cli)
        group: click.Command = cli
        rest = shlex.split(command)
        while isinstance(group, click.Group):
            name, *rest = rest
            found = group.get_command(context, name)
            assert found, command
            group = found
        group.make_context(
            group.name, rest or ["ID"] * bool(group.params and group.name in ("follow", "fetch", "stop"))
        )


def test_files_that_the_page_names_exist() -> None:
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    named = {*re.findall(r"\]\(\.\./([^)#]+)\)", page), *re.findall(r"\bdeploy/[\w.-]+\w", page)}
    assert len(named) >= 4 and [name for name in named if not (ROOT / name).exists()] == []

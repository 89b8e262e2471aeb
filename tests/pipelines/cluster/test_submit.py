"""Submitting and following a job, with a cluster that exists only here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.adapters.jobs import Job
from pipelines.cluster import submit as module
from pipelines.cluster.submit import SubmitOptions, environment_of, exit_status, fetch, follow, submit
from pipelines.running.process import Interrupted
from tcformer.errors import UserError

RUNNING = Job("job-1", "RUNNING", "dvc repro", started=1.0, node="n")
DONE = replace(RUNNING, status="SUCCEEDED", ended=2.0, exit_status=0)


class Cluster:
    """Stands for `pipelines.adapters.jobs.Jobs`: a log, the state after it, and results or none."""

    address = "http://head:8265"

    def __init__(self, log: list[str], after: Job, results: bool = True, press: tuple[int, ...] = ()) -> None:
        self._log, self._after, self._results, self._press = log, after, results, press
        self.calls: list[str] = []
        self.sent: dict[str, Any] = {}
        self._over = False

    def submit(self, identity: str, entrypoint: str, package: Path, environment: dict[str, str], command: str) -> None:
        self.sent = {"package": package.is_file(), "entrypoint": entrypoint, "env": environment, "command": command}

    def job(self, identity: str) -> Job:
        return self._after if self._over else RUNNING

    def log(self, identity: str) -> Iterator[str]:
        for index, text in enumerate(self._log):
            if index in self._press:
                os.kill(os.getpid(), signal.SIGINT)
            yield text
        self._over = True

    def stop(self, identity: str) -> bool:
        self.calls.append("stop")
        return True

    def download(self, job: Job, name: str, target: Path) -> bool:
        self.calls.append(f"download {name}")
        target.write_bytes(b"") if self._results else None
        return self._results


@pytest.fixture(autouse=True)
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "unpack", lambda archive, identity, root: identity)
    monkeypatch.setattr(module, "describe", lambda identity: [f"results of {identity}"])


def test_a_job_is_followed_and_its_results_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(["one\n", "", "two\n"], DONE)
    assert follow(cluster, "job-1", tmp_path) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out == "one\ntwo\nresults of job-1\n"
    assert cluster.calls == ["download job-1.tar"]


def test_ctrl_c_stops_the_job_and_takes_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(["one\n", "two\n", "checkpoint\n"], replace(DONE, status="STOPPED", exit_status=None), press=(1,))
    assert follow(cluster, "job-1", tmp_path) == 130  # type: ignore[arg-type]
    assert cluster.calls == ["stop", "download job-1.tar"]
    printed = capsys.readouterr().out
    assert printed.index("stopping job-1") < printed.index("checkpoint")


def test_a_second_ctrl_c_leaves_the_job_alone(tmp_path: Path) -> None:
    cluster = Cluster(["one\n", "two\n", "", "three\n"], DONE, press=(1, 3))
    with pytest.raises(Interrupted):
        follow(cluster, "job-1", tmp_path)  # type: ignore[arg-type]
    assert cluster.calls == ["stop"]


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (DONE, 0),
        (replace(DONE, status="FAILED", exit_status=3), 3),
        (replace(DONE, status="FAILED", exit_status=None), 1),
        (replace(DONE, status="STOPPED", exit_status=None), 130),
    ],
)
def test_the_exit_status_is_the_commands(job: Job, status: int) -> None:
    assert exit_status(job) == status


def test_a_job_that_never_started_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = replace(DONE, status="FAILED", exit_status=None, message="runtime_env\nsetup failed: no disk")
    cluster = Cluster([], lost)
    assert follow(cluster, "job-1", tmp_path) == 1  # type: ignore[arg-type]
    assert "job-1 failed: runtime_env setup failed: no disk" in capsys.readouterr().err
    assert cluster.calls == []


def test_results_that_are_not_there_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not fetch(Cluster([], DONE, results=False), DONE, tmp_path)  # type: ignore[arg-type]
    assert "no results of job-1: it packed none, a later job" in capsys.readouterr().err
    with pytest.raises(UserError, match="job-1 is RUNNING: expected a job that has ended"):
        fetch(Cluster([], DONE), RUNNING, tmp_path)  # type: ignore[arg-type]


def test_a_submission_sends_a_package_and_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "sent_files", lambda root: [])
    monkeypatch.setattr(module, "write_package", lambda order, target, root: target.write_bytes(b"zip"))
    monkeypatch.setattr(module, "dvc_cache", lambda root: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    cluster = Cluster([], DONE)
    options = SubmitOptions(detach=True, environment={"A": "1"})
    assert submit(cluster, ["python", "-c", "print('x y')"], options, tmp_path) == 0  # type: ignore[arg-type]
    assert cluster.sent == {
        "package": True,
        "entrypoint": "exec python -m pipelines.cluster.job",
        "env": {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "A": "1"},
        "command": "python -c 'print('\"'\"'x y'\"'\"')'",
    }
    assert "tcformer jobs follow tcformer-" in capsys.readouterr().out


def test_variables_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "here")
    monkeypatch.delenv("UNSET", raising=False)
    assert environment_of(["A=1=2", "SET", "EMPTY="]) == {"A": "1=2", "SET": "here", "EMPTY": ""}
    with pytest.raises(UserError, match="--env UNSET: expected a variable that is set"):
        environment_of(["UNSET"])

"""Addresses of dashboards, and sentences for what can go wrong there, with a server that answers as Ray's does."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipelines.adapters import jobs as module
from pipelines.adapters.jobs import DEFAULT_ADDRESS, Job, Jobs, dashboard_address, folder_of_results
from tcformer.errors import UserError

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # restored after the test
        os.environ.pop(name)


class Answering(BaseHTTPRequestHandler):
    """Answers of a dashboard: path -> status and body."""

    answers: dict[str, tuple[int, bytes]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path.partition("?")[0], (404, b"no such job"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    Answering.answers = {"/api/version": version(ray.__version__)}
    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def version(number: str) -> tuple[int, bytes]:
    return 200, json.dumps({"version": "4", "ray_version": number, "ray_commit": "x"}).encode()


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dashboard_address(None) == DEFAULT_ADDRESS
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert dashboard_address(None) == "http://head:8265"
    assert dashboard_address("other:8265") == "http://other:8265"
    assert dashboard_address("https://ray.example.org") == "https://ray.example.org"
    for wrong in ("ray://head:10001", "http://head", "http://head:port", "http://"):
        with pytest.raises(UserError, match="expected the address of the head's dashboard"):
            dashboard_address(wrong)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=rf"nothing answers at http://127\.0\.0\.1:{port} .*start one with"):
        Jobs(f"http://127.0.0.1:{port}")


def test_a_cluster_on_the_network_needs_a_token() -> None:
    with pytest.raises(UserError, match="RAY_AUTH_MODE is not token"):
        Jobs("http://head.example.org:8265")


def test_another_version(dashboard: str) -> None:
    Answering.answers["/api/version"] = version("2.41.0")
    with pytest.raises(UserError, match=r"is version 2\.41\.0, and this environment has"):
        Jobs(dashboard)


@pytest.mark.parametrize(("status", "word"), [(401, "missing"), (403, "wrong")])
def test_a_refused_token(dashboard: str, status: int, word: str) -> None:
    Answering.answers["/api/version"] = status, b"Unauthorized"
    with pytest.raises(UserError, match=rf"refuses the token \({word}\).*RAY_AUTH_TOKEN_PATH"):
        Jobs(dashboard)


def test_something_else_listens(dashboard: str) -> None:
    Answering.answers["/api/version"] = 200, b"<html>"
    with pytest.raises(UserError, match="does not answer as a Ray dashboard"):
        Jobs(dashboard)


def test_no_such_job(dashboard: str) -> None:
    jobs = Jobs(dashboard)
    with pytest.raises(UserError, match=r"no job nonsense at .*tcformer jobs list"):
        jobs.job("nonsense")


class Tailing:
    """Ray's client, whose connection breaks after some text; after the last text the job is over."""

    def __init__(self, *connections: list[str]) -> None:
        self._connections = list(connections)

    async def tail_job_logs(self, identity: str) -> AsyncIterator[str]:
        for text in self._connections.pop(0):
            yield text
        if self._connections:
            raise RuntimeError("WebSocket connection closed unexpectedly")


def test_a_log_goes_on_after_a_broken_connection(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    jobs = Jobs(dashboard)
    monkeypatch.setattr(jobs, "_client", Tailing(["one\ntw"], [], ["one\n", "two\nth", "ree\n"]))
    monkeypatch.setattr(jobs, "job", lambda identity: Job(identity, "SUCCEEDED", "x"))
    assert "".join(jobs.log("job-1")) == "one\ntwo\nthree\n"
    monkeypatch.setattr(jobs, "_client", Tailing(*([] for _ in range(10))))
    with pytest.raises(UserError, match="closed unexpectedly"):
        list(jobs.log("job-1"))


def test_an_address_in_the_environment_does_not_replace_the_given_one(
    dashboard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    assert Jobs(dashboard)._client.get_address() == dashboard


def test_a_head_that_has_just_started_is_waited_for(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    jobs, calls = Jobs(dashboard), []

    class Starting:
        def submit_job(self, **arguments: object) -> None:
            calls.append(arguments)
            if len(calls) < 3:
                raise RuntimeError("Request failed with status code 500: No available agent to submit job")

    monkeypatch.setattr(jobs, "_client", Starting())
    jobs.submit("job-1", "exec python", Path("package.zip"), {"A": "1"}, "dvc repro")
    assert len(calls) == 3
    assert calls[0]["runtime_env"] == {
        "working_dir": "package.zip",
        "env_vars": {"A": "1", "RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "600"},
    }


def test_a_file_of_a_job(dashboard: str, tmp_path: Path) -> None:
    jobs, job = Jobs(dashboard), Job("j", "SUCCEEDED", "x", node="abc")
    target = tmp_path / "results.tar"
    assert not jobs.download(job, "j.tar", target) and not target.exists()
    Answering.answers["/api/v0/logs/file"] = 200, bytes(range(256)) * 1000
    assert jobs.download(job, "j.tar", target)
    assert target.read_bytes() == bytes(range(256)) * 1000
    assert not jobs.download(Job("j", "FAILED", "x"), "j.tar", target), "it ran nowhere"


def test_outside_of_a_job_there_is_no_folder_for_results() -> None:
    assert sys.platform == "linux"
    with pytest.raises(UserError, match="runs in a job that `tcformer submit` sent"):
        folder_of_results()

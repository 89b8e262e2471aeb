"""Functions mapped over the cores of a Ray: what is said and raised while nodes are missing; no Ray runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import ray

from pipelines.adapters import ray as adapter
from pipelines.adapters.elastic import Look, Node, Places
from pipelines.adapters.mailbox import Mailbox
from pipelines.adapters.ray import Seldom, parallel_map
from pipelines.training.events import Note
from tcformer.errors import UserError


class Cluster:
    """A Ray with one node that is there at some seconds. A task is done `seconds` after it began; nobody sleeps."""

    def __init__(self, away: range, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self._away = 0.0, away
        self.mailbox = Mailbox()
        handle = type("Handle", (), {"take": type("Take", (), {"remote": self.mailbox.take})})
        self._left = seconds
        monkeypatch.setattr(adapter, "runs_locally", lambda: False)
        monkeypatch.setattr(adapter, "_look_at_cluster", self._look)
        monkeypatch.setattr(adapter, "_start_mailbox", lambda: handle)
        monkeypatch.setattr(adapter, "Places", partial(Places, _clock=lambda: self.now))
        monkeypatch.setattr(adapter, "Seldom", partial(Seldom, clock=lambda: self.now))
        monkeypatch.setattr(
            ray, "remote", lambda **options: lambda apply: type("F", (), {"remote": partial(partial, apply)})
        )
        monkeypatch.setattr(ray, "put", lambda value: value)
        monkeypatch.setattr(ray, "get", lambda value: value() if isinstance(value, partial) else value)
        monkeypatch.setattr(ray, "wait", self._wait)

    def _is_away(self) -> bool:
        return int(self.now) in self._away

    def _look(self) -> Look:
        node = Node("a", "10.77.0.2", {"CPU": 1.0})
        return Look([] if self._is_away() else [node], {})  # a task uses its core

    def _wait(self, waiting: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        self.now += timeout
        if not self._is_away():
            self._left -= timeout
        self.mailbox.send(Note(f"10.77.0.2: fetching the dataset: {self.now:.0f} of 99 GB"))
        return (waiting[:1], waiting[1:]) if self._left <= 0 else ([], waiting)


def test_a_lost_node_is_said_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(range(10, 100), 20, monkeypatch)
    assert parallel_map(abs, [-1, 2], wait_limit=2, title="evaluate@face") == [1, 2]
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if "waiting" in line]) == 1 and cluster.now == 111
    assert said[0].startswith("evaluate@face: 0 of 1 workers: waiting for a node since ")
    assert said[0].endswith("; node 10.77.0.2 was lost; for at most 2 minutes (cluster.wait_limit)")


def test_waiting_for_a_node_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(range(10, 1000), 20, monkeypatch)
    expected = (
        r"^0 of 1 workers: .* 10\.77\.0\.2 was lost\. None came for 2 minutes .*: add nodes and run the same command"
    )
    with pytest.raises(UserError, match=expected):
        parallel_map(abs, [-1], wait_limit=2)
    assert 130 <= cluster.now < 133


def test_what_tasks_do_is_shown_every_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Cluster(range(0), 70, monkeypatch)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.77.0.2")

    def function(item: int, at: Callable[[str], None]) -> int:
        return item

    assert parallel_map(function, [5], wait_limit=2, title="evaluate@face", reports=True) == [5]
    shown = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines() if "fetching" in line]
    assert shown == ["1 of 99 GB", "31 of 99 GB", "61 of 99 GB"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ray.exceptions.WorkerCrashedError(),
            r"\(The worker died unexpectedly while executing this task\).*see `dmesg`",
        ),
        (
            ray.exceptions.OutOfMemoryError("Task was killed due to memory. More."),
            r"\(Task was killed.*too little memory",
        ),
        (ray.exceptions.NodeDiedError("node 10.77.0.2 died"), r"\(node 10\.77\.0\.2 died\).*see why the node was lost"),
        (ray.exceptions.RayTaskError("f", "trace", UserError("face.jpg: damaged")), r"^face\.jpg: damaged$"),
    ],
)
def test_a_lost_process_becomes_one_sentence(error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(item: int) -> int:
        raise error

    Cluster(range(0), 1, monkeypatch)
    with pytest.raises(UserError, match=expected) as caught:
        parallel_map(fail, [1], wait_limit=2, title="evaluate@face")
    assert len(str(caught.value).splitlines()) == 1


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(item: int) -> int:
        raise ray.exceptions.RayTaskError("f", "trace", KeyError("x"))

    Cluster(range(0), 1, monkeypatch)
    with pytest.raises(ray.exceptions.RayTaskError, match="trace"):
        parallel_map(fail, [1], wait_limit=2)

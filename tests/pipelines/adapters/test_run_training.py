"""What the driver makes of its workers' reports, with functions in place of Ray's."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
import torch

from pipelines.adapters import ray as adapter
from pipelines.adapters import watch
from pipelines.adapters.mailbox import Mailbox
from pipelines.params import Cluster
from pipelines.process import Interrupts
from pipelines.training.events import Event, Failed, Note
from tcformer.errors import UserError
from tests.small import parameters


class Remote:
    """An object whose methods are called by `.remote(...)`, as an actor's are."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self._actor, name))


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """The mailbox of a training; Ray is replaced."""
    made = Mailbox()
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "remote", lambda **options: lambda actor: SimpleNamespace(remote=lambda: Remote(made)))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(watch, "FAILURE_SECONDS", 0.5)
    monkeypatch.setattr(adapter.time, "sleep", lambda seconds: threading.Event().wait(min(seconds, 0.2)))
    return made


class Waiting(threading.Thread):
    """Ray Train's call: one worker raises, and the call waits for the other one."""

    error = None

    def __init__(self, worker: Any, job: Any, cluster: Cluster, mailbox: Any, gpus: bool) -> None:
        super().__init__(daemon=True)
        self._config = {"worker": worker, "job": job, "mailbox": mailbox}

    def run(self) -> None:
        adapter._run_worker(self._config)
        threading.Event().wait(30)


def run(worker: Any, cluster: Cluster, events: list[Event]) -> None:
    job: Any = SimpleNamespace(name="finetune-face")
    adapter.run_training(worker, job, cluster, events.append, Interrupts())


def test_an_exception_in_our_code_ends_a_training_at_once_with_its_traceback(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    calls = []

    def worker(job: Any, link: Any) -> None:
        calls.append(job)
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(adapter, "_Fit", Waiting)
    cluster = parameters(tmp_path).cluster
    with pytest.raises(RuntimeError, match=r"training finetune-face failed on rank 0:\nTraceback") as caught:
        run(worker, cluster, [])
    assert "test_run_training.py" in str(caught.value) and "ZeroDivisionError: a mistake of ours" in str(caught.value)
    assert len(calls) == 1, "it is not tried again"


def test_a_users_mistake_is_its_sentence_alone(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def worker(job: Any, link: Any) -> None:
        raise UserError("image a.jpg: cannot be decoded")

    monkeypatch.setattr(adapter, "_Fit", Waiting)
    events: list[Event] = []
    with pytest.raises(UserError, match=r"^image a\.jpg: cannot be decoded$"):
        run(worker, parameters(tmp_path).cluster, events)
    assert not [event for event in events if isinstance(event, Failed | Note)]

"""Checkpoints are written beside the training: it waits for no store, and a store that is away costs a note."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from pipelines.adapters.storage import Store
from pipelines.driver.local import train_locally
from pipelines.training import checkpoint, writer
from pipelines.training.events import CheckpointSaved, Event, Note, Row
from pipelines.training.writer import CheckpointWriter, Snapshot
from tcformer.errors import UserError
from tests.small import face_job

NAME = checkpoint.folder_name(2)
DONE = CheckpointSaved(2)


class FaultyStore(Store):
    """A store whose writes do something first, such as waiting or failing."""

    def __init__(self, root: Path, before_write: Callable[[str], None]) -> None:
        super().__init__(str(root))
        self._before_write = before_write

    def write(self, key: str, content: bytes) -> None:
        self._before_write(key)
        super().write(key, content)


def away(times: int) -> Callable[[str], None]:
    """Fails so many times."""
    left = [times]

    def fail(key: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("AWS Error NETWORK_CONNECTION: curlCode: 7")

    return fail


@pytest.fixture
def snapshot() -> Snapshot:
    found = Snapshot(others={"history.json": b"[]"})
    found.add("network.safetensors", {"weight": torch.arange(6.0).reshape(2, 3).t()}, {"about": "x"})
    return found


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAUSE_SECONDS", 0.01)


def test_a_snapshot_keeps_its_values(snapshot: Snapshot, tmp_path: Path) -> None:
    weight = torch.ones(3)
    snapshot.add("other.safetensors", {"weight": weight})
    assert snapshot.size == 2 + 6 * 4 + 3 * 4
    weight.zero_()
    files = dict(snapshot.files())
    assert torch.equal(load(files["other.safetensors"])["weight"], torch.ones(3))
    assert torch.equal(load(files["network.safetensors"])["weight"], torch.arange(6.0).reshape(2, 3).t())
    assert dict(snapshot.files()) == files, "it can be written again"


def test_events_come_from_the_thread_of_the_training(snapshot: Snapshot, tmp_path: Path) -> None:
    events: list[tuple[Event, threading.Thread]] = []
    store, written = Store(str(tmp_path)), threading.Event()
    writes = CheckpointWriter(store, lambda event: events.append((event, threading.current_thread())))
    writes.start(NAME, snapshot, DONE)
    while checkpoint.fault(store, NAME, tmp_path):
        written.wait(0.01)
    assert events == []
    writes.wait()
    assert events == [(DONE, threading.current_thread())]


def test_a_store_that_is_away_for_a_while_costs_two_notes(snapshot: Snapshot, tmp_path: Path) -> None:
    events: list[Event] = []
    store = FaultyStore(tmp_path, away(3))
    with CheckpointWriter(store, events.append) as writes:
        writes.start(NAME, snapshot, DONE)
        writes.wait()
    first, second, last = events
    assert isinstance(first, Note) and first.text == (
        "the checkpoint step-00000002 cannot be written now (AWS Error NETWORK_CONNECTION: curlCode: 7): trying again "
        "for up to 300 s, while the training goes on"
    )
    assert second == Note("the checkpoint step-00000002 is written, at attempt 4") and last == DONE
    assert checkpoint.fault(store, NAME, tmp_path) is None


def test_a_store_that_stays_away_is_an_error(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)
    events: list[Event] = []
    writes = CheckpointWriter(FaultyStore(tmp_path, away(10**6)), events.append)
    writes.start(NAME, snapshot, DONE)
    expected = r"step-00000002 could not be written for 0 s: AWS Error .*; earlier checkpoints are unchanged, and the"
    with pytest.raises(UserError, match=expected):
        writes.start(checkpoint.folder_name(4), snapshot)
    assert [type(event) for event in events] == [Note], "one note, not one an attempt"


def test_a_training_that_fails_lets_a_write_end_but_repeats_none(snapshot: Snapshot, tmp_path: Path) -> None:
    release = threading.Event()

    def slow(key: str) -> None:
        release.wait(10)

    store = FaultyStore(tmp_path / "slow", slow)
    with pytest.raises(ZeroDivisionError), CheckpointWriter(store, lambda event: None) as writes:
        writes.start(NAME, snapshot, DONE)
        threading.Timer(0.05, release.set).start()
        raise ZeroDivisionError
    assert checkpoint.fault(store, NAME, tmp_path) is None
    attempts: list[str] = []

    def fail(key: str) -> None:
        attempts.append(key)
        release.wait(0.2)
        raise OSError("gone")

    release.clear()
    with pytest.raises(ZeroDivisionError), CheckpointWriter(FaultyStore(tmp_path, fail), lambda event: None) as writes:
        writes.start(NAME, snapshot, DONE)
        raise ZeroDivisionError
    assert len(attempts) <= 1


def test_steps_do_not_wait_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of step 2 is written only after step 3, that of step 4 after it; the files are as ever."""
    job = face_job(tmp_path, training__validate_every=3)
    train_locally(job, lambda event: None, stops_before=lambda step: step == 5)
    third_step, timely = threading.Event(), []

    def wait(key: str) -> None:
        if key == f"{NAME}/history.json":
            timely.append(third_step.wait(60))

    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, Row) and event.step == 3:
            third_step.set()

    monkeypatch.setattr("pipelines.training.loop.Store", lambda root, **_: FaultyStore(Path(root), wait))
    other = replace(job, store=str(tmp_path / "slow"))
    train_locally(other, note, stops_before=lambda step: step == 5)
    assert timely == [True]
    told = [event.step for event in events if isinstance(event, Row | CheckpointSaved)]
    assert told[:3] == [1, 2, 3] and sorted(told) == [1, 2, 2, 3, 4, 4, 5, 5]
    for name in ("step-00000004", "step-00000005"):
        for path in (tmp_path / "store" / name).iterdir():
            assert (tmp_path / "slow" / name / path.name).read_bytes() == path.read_bytes()


def test_what_cannot_be_written_ends_the_training_at_a_later_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)

    def fail(key: str) -> None:
        if key.startswith("step-00000004"):
            raise OSError("gone")

    monkeypatch.setattr("pipelines.training.loop.Store", lambda root, **_: FaultyStore(Path(root), fail))
    job = face_job(tmp_path)
    with pytest.raises(UserError, match=r"step-00000004 could not be written for 0 s: gone"):
        train_locally(job, lambda event: None)
    assert checkpoint.last_complete(Store(job.store)) == "step-00000002"

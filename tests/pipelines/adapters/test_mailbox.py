"""The mailbox keeps events and stops workers; its process and those of the workers start small."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from pipelines.adapters.mailbox import Mailbox, WorkerState
from pipelines.training.events import CheckpointSaved, Note
from tests.imports import ROOT


def test_events_are_taken_once_and_in_order() -> None:
    mailbox = Mailbox()
    for event in (Note("first"), CheckpointSaved(2)):
        mailbox.send(event)
    assert mailbox.take() == ([Note("first"), CheckpointSaved(2)], {})
    assert mailbox.take() == ([], {})


def test_all_workers_stop_before_the_same_step() -> None:
    """Whatever the order of their questions, none hears "go on" where another hears "stop"."""
    for order in itertools.permutations([0, 0, 0, 1, 1, 1, "stop"]):
        mailbox, step, answers = Mailbox(), [0, 0], [[], []]
        for turn in order:
            if turn == "stop":
                mailbox.stop()
                continue
            answers[turn].append(mailbox.stops_before(turn, step[turn]))
            step[turn] += 1
        both = list(zip(*answers, strict=True))
        assert all(first == second for first, second in both), order
        if order[-1] != "stop" and order.index("stop") == 0:
            assert all(any(answer) for answer in both), order


def test_the_state_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("pipelines.adapters.mailbox.time.monotonic", lambda: clock[0])
    mailbox = Mailbox()
    mailbox.hello(0, "here")
    mailbox.beat(0, "step 1")
    clock[0] += 3
    mailbox.beat(0, "step 1")
    clock[0] += 2
    assert mailbox.take()[1] == {0: WorkerState(silent=2.0, place="step 1", since=5.0, node="here")}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("mailbox", {"torch", "numpy", "pydantic", "ray"}), ("ray_workers", {"torch", "numpy", "pydantic", "ray.train"})],
)
def test_what_rays_actors_import_is_not_heavy(module: str, heavy: set[str]) -> None:
    """Each import is a part of every stage's start; a worker must know its GPUs before PyTorch is imported."""
    code = f"import sys, pipelines.adapters.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

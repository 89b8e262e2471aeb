"""When a training that does not end by itself is ended."""

from __future__ import annotations

from pipelines.adapters.mailbox import WorkerState
from pipelines.adapters.watch import Watch


def worker(silent: float = 0.5, since: float = 1.0, place: str = "step 3") -> WorkerState:
    return WorkerState(silent=silent, place=place, since=since, node="10.0.0.1")


def test_an_exception_is_final_if_all_workers_live() -> None:
    watch = Watch(limit=60.0, say=lambda text: None)
    assert not watch.failure_is_final(2.0, {0: worker(), 1: worker()})
    assert watch.failure_is_final(6.0, {0: worker(), 1: worker()})
    assert not watch.failure_is_final(6.0, {0: worker(), 1: worker(silent=6.5)}), "rank 1 was lost; Ray ends the group"


def test_a_silent_worker_is_named_and_then_given_up() -> None:
    said: list[str] = []
    watch = Watch(limit=60.0, say=said.append)
    assert watch.stall({0: worker(), 1: worker(silent=10.0)}) is None and not said
    for silent in (16.0, 20.0):
        assert watch.stall({0: worker(), 1: worker(silent=silent)}) is None
    assert len(said) == 1 and "rank 1 on 10.0.0.1 has not been heard for 16 s (at: step 3)" in said[0]
    reason = watch.stall({0: worker(), 1: worker(silent=61.0)})
    assert reason == "no sign of life for 60 s from rank 1 on 10.0.0.1 at: step 3"


def test_a_worker_that_came_back_is_named_again() -> None:
    said: list[str] = []
    watch = Watch(limit=60.0, say=said.append)
    for silent in (16.0, 0.5, 16.0):
        watch.stall({0: worker(silent=silent)})
    assert len(said) == 2


def test_no_progress_anywhere_is_a_stall() -> None:
    watch = Watch(limit=60.0, say=lambda text: None)
    assert watch.stall({0: worker(since=61.0), 1: worker(since=2.0)}) is None
    reason = watch.stall({0: worker(since=61.0), 1: worker(since=70.0, place="waiting for the samples of step 4")})
    assert reason and "rank 1 on 10.0.0.1: waiting for the samples of step 4" in reason
    assert watch.stall({}) is None, "no worker has begun"

"""The group of training processes: ranks, GPUs, and what Ray does with it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from pipelines.adapters.ray_workers import Assignment, Member, NoRoomError, Place, TrainingWorker, WorkerGroup, members
from pipelines.training.events import Event, Note


def test_ranks_go_machine_by_machine_in_the_order_of_gpus() -> None:
    places = [Place("b", ("10",)), Place("a", ("0",)), Place("b", ("2",)), Place("a", ("1",))]
    assert members(places) == [
        Member(1, 1, 4, ("2", "10")),
        Member(2, 0, 4, ("0", "1")),
        Member(0, 0, 4, ("2", "10")),
        Member(3, 1, 4, ("0", "1")),
    ]


def test_ranks_without_gpus() -> None:
    assert members([Place("a", ()), Place("b", ()), Place("a", ())]) == [
        Member(0, 0, 3, ()),
        Member(2, 0, 3, ()),
        Member(1, 1, 3, ()),
    ]


class Answer:
    """An actor whose methods do nothing."""

    def __getattr__(self, name: str) -> object:
        return type("Method", (), {"remote": staticmethod(lambda *_: None)})


def test_a_worker_sees_the_gpus_of_its_machine_and_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from pipelines.adapters import rendezvous

    seen: list[object] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as Ray sets it
    monkeypatch.setenv("LOCAL_RANK", "")
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(rendezvous, "join_group", lambda backend, rank, count, *_: seen.append((backend, rank, count)))
    work = ray.cloudpickle.dumps((lambda job, link: None, "job"))
    TrainingWorker().run(Member(5, 1, 8, ("2", "3")), Assignment(work, Answer(), loopback=False))  # type: ignore[arg-type]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3" and os.environ["LOCAL_RANK"] == "1"
    assert seen == [1, ("nccl", 5, 8)]


def test_a_worker_ends_after_the_mailbox_has_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from pipelines.adapters import rendezvous

    class Sends(Answer):
        """Answers an event with the event, as the reference to wait for."""

        send = type("Method", (), {"remote": staticmethod(lambda event: event)})

    waited: list[Event] = []
    monkeypatch.setattr(ray, "get", waited.append)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    monkeypatch.setattr(rendezvous, "join_group", lambda *_: None)
    monkeypatch.setenv("LOCAL_RANK", "")
    work = ray.cloudpickle.dumps((lambda job, link: [link.send(Note(text)) for text in ("first", "last")], "job"))
    TrainingWorker().run(Member(0, 0, 1, ()), Assignment(work, Sends(), loopback=True))  # type: ignore[arg-type]
    assert waited[-1] == Note("last")


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    """A Ray with two cores and two GPUs that are not there."""
    from functools import partial

    import ray

    from pipelines.adapters.ray_environment import prepare_environment, start_patiently

    prepare_environment(local=True)
    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    start_patiently(partial(ray.init, "local", num_cpus=2, num_gpus=2, **quiet), ray.shutdown)
    yield
    ray.shutdown()


@pytest.mark.pipeline
@pytest.mark.slow
def test_ray_gives_each_worker_a_gpu_of_its_own(small_ray: None) -> None:
    import ray

    group = WorkerGroup(Assignment(b"", Answer(), loopback=True), 2, {"CPU": 1, "GPU": 1})  # type: ignore[arg-type]
    while not group._places:
        assert group.goes_on(0.1)
    assert {place.gpus for place in ray.get(group._places)} == {("0",), ("1",)}
    group.end()


@pytest.mark.pipeline
@pytest.mark.slow
def test_a_group_without_room_ends(small_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.adapters.ray_workers.ROOM_SECONDS", 0.3)
    group = WorkerGroup(Assignment(b"", Answer(), loopback=True), 3, {"CPU": 1})  # type: ignore[arg-type]
    while group.goes_on(0.1):
        pass
    assert isinstance(group.error, NoRoomError)
    group.end()

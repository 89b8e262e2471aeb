"""How many workers a training gets, and what is said while it waits; no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.adapters import ray as adapter
from pipelines.adapters.elastic import Look, Node, Places
from pipelines.adapters.mailbox import Mailbox
from pipelines.params import Cluster, WorkerRange, load_params
from pipelines.running.process import Interrupted, Interrupts
from pipelines.training.events import CheckpointSaved, Event, Failed, Note, Stopped
from tcformer.errors import UserError
from tests.imports import ROOT


def node(number: int, cores: float = 1, name: str = "", gpus: float = 0) -> Node:
    return Node(name or f"node-{number}", f"10.77.0.{number}", {"CPU": cores, "GPU": gpus, "memory": 1e9})


def free(*nodes: Node) -> Look:
    """A cluster of which nothing is used."""
    return Look(nodes, {name: sum(each.resources[name] for each in nodes) for name in ("CPU", "GPU")})


class Simulated:
    """A cluster that changes with time: what it is after so many seconds. Nobody sleeps."""

    def __init__(self, looks: dict[float, Look], counts: list[int], need: dict[str, float], limit: float = 60) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self._looks = looks
        self.places = Places(
            counts, need, self._look, self.said.append, limit, _clock=lambda: self.now, _sleep=self._sleep
        )

    def _look(self) -> Look:
        return self._looks[max(at for at in self._looks if at <= self.now)]

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def choose(self) -> int:
        return self.places.choose(Interrupts())


@pytest.mark.parametrize(
    ("cores", "counts", "expected"),
    [([1, 1], [1, 2], 2), ([8], [2, 4, 8], 8), ([3, 3], [2, 4, 8], 4), ([16, 16], [1, 2, 4], 4), ([5], [3], 3)],
)
def test_the_largest_number_that_shares_the_batch_and_has_room(
    cores: list[float], counts: list[int], expected: int
) -> None:
    cluster = Simulated({0: free(*(node(i, each) for i, each in enumerate(cores)))}, counts, {"CPU": 1})
    assert cluster.choose() == expected and cluster.now == 0 and not cluster.said


def test_a_worker_is_on_one_node() -> None:
    """Three cores on each of two nodes hold one worker of two cores each, not three; a GPU is needed too."""
    cluster = Simulated({0: free(node(1, 3), node(2, 3))}, [1, 2, 3], {"CPU": 2})
    assert cluster.choose() == 2
    gpus = Simulated({0: free(node(1, 64, gpus=0), node(2, 64, gpus=4))}, [1, 2, 4, 8], {"CPU": 2, "GPU": 1})
    assert gpus.choose() == 4


def test_waiting_is_said_once_with_the_lost_node() -> None:
    both = free(node(1), node(2))
    cluster = Simulated({0: both, 10: free(node(1)), 100: free(node(1), node(2, name="new"))}, [2], {"CPU": 1})
    assert cluster.choose() == 2
    cluster.now = 10
    assert cluster.choose() == 2
    assert 100 <= cluster.now <= 101
    (text,) = cluster.said
    assert text.startswith("1 of 2 workers: waiting for a node since ")
    assert text.endswith("; node 10.77.0.2 was lost; for at most 60 minutes (cluster.wait_limit)")
    assert cluster.places.lost() == "", "it is back"


def test_waiting_ends() -> None:
    cluster = Simulated({0: free(node(1), node(2), node(3)), 1: free(node(3))}, [2], {"CPU": 1}, limit=2)
    assert cluster.choose() == 2
    cluster.now = 1
    with pytest.raises(
        UserError,
        match=r"^1 of 2 workers: waiting for a node since \d\d:\d\d; nodes 10.77.0.1, 10.77.0.2 were lost. None came "
        r"for 2 minutes \(cluster.wait_limit\): add nodes or lower cluster.workers; the same command resumes",
    ):
        cluster.choose()
    assert 121 < cluster.now < 124


def test_a_signal_ends_the_waiting() -> None:
    cluster = Simulated({0: free(node(1))}, [2], {"CPU": 1})
    interrupts = Interrupts()
    cluster.places._sleep = lambda seconds: interrupts.note(15, None)
    with pytest.raises(Interrupted):
        cluster.places.choose(interrupts)


def test_what_a_group_has_just_used_is_waited_for_a_few_seconds() -> None:
    used = Look([node(1), node(2)], {"CPU": 0})
    freed = Simulated({0: used, 2: free(node(1), node(2))}, [1, 2], {"CPU": 1})
    assert freed.choose() == 2 and freed.now == 2
    others = Simulated({0: Look([node(1), node(2)], {"CPU": 1})}, [1, 2], {"CPU": 1})
    assert others.choose() == 1 and 5 < others.now < 7, "another job uses the other core"
    full = Simulated({0: used}, [2], {"CPU": 1})
    assert full.choose() == 2 and not full.said, "Ray waits for what others use"


def test_a_group_grows_where_there_is_room() -> None:
    looks = {0: Look([node(1)], {"CPU": 0}), 1: Look([node(1), node(2)], {"CPU": 1})}
    cluster = Simulated({**looks, 2: Look([node(1), node(2)], {"CPU": 0})}, [1, 2], {"CPU": 1})
    assert cluster.places.larger(1) is None
    cluster.now = 1
    assert cluster.places.larger(1) == 2 and cluster.places.larger(2) is None
    cluster.now = 2
    assert cluster.places.larger(1) is None, "another job took the place"


@pytest.fixture
def cluster() -> Cluster:
    found = load_params(ROOT / "params.yaml").cluster
    return found.model_copy(update={"workers": WorkerRange(min=1, max=2), "max_failures": 1, "address": "head:6379"})


@pytest.fixture
def run(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[list[int], list[str]]]]:
    """Runs a training whose groups end as given, on a cluster that has these numbers of nodes for each group."""

    def run(ends: list[adapter._End], nodes: list[int]) -> tuple[list[int], list[str]]:
        counts: list[int] = []
        events: list[Event] = []

        def run_group(worker: object, job: object, cluster: Cluster, count: int, *others: object) -> adapter._End:
            counts.append(count)
            return ends[len(counts) - 1]

        monkeypatch.setattr(adapter, "_run_group", run_group)
        monkeypatch.setattr(adapter, "uses_gpus", lambda: False)
        monkeypatch.setattr(adapter, "_look_at_cluster", lambda: free(*map(node, range(nodes[len(counts)]))))
        job = type("Job", (), {"name": "finetune-face"})()
        adapter.run_training(lambda job, link: None, job, cluster, [1, 2], events.append, Interrupts())
        return counts, [event.text for event in events if isinstance(event, Note)]

    yield run


def test_a_lost_node_shrinks_the_group_and_a_new_one_grows_it(run: Callable[..., tuple[list[int], list[str]]]) -> None:
    lost, grows, finished = adapter._End("lost", "RayActorError"), adapter._End("grows"), adapter._End("finished")
    counts, said = run([lost, grows, finished], [2, 1, 2])
    assert counts == [2, 1, 2]
    assert said == [
        "a worker was lost, failure 1 of at most 1: restarting",
        "goes on with 1 of 2 workers; node 10.77.0.1 was lost",
    ]


def test_workers_that_are_lost_too_often_end_the_training(run: Callable[..., tuple[list[int], list[str]]]) -> None:
    lost, announced = adapter._End("lost", "the worker died"), adapter._End("announced")
    busy = adapter._End("not started")
    expected = r"finetune-face lost its workers more than cluster.max_failures = 1 times; .* failure: the worker died"
    with pytest.raises(UserError, match=expected):
        run([lost, announced, busy, announced, lost], [2] * 6)


def test_what_one_machine_does_not_have_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(adapter.SHARED, "1")
    monkeypatch.setattr(adapter, "uses_gpus", lambda: False)
    monkeypatch.setattr(adapter, "_look_at_cluster", lambda: free(node(1, 2)))
    two = cluster.model_copy(update={"cpus_per_worker": 2})
    with pytest.raises(UserError, match=r"asks for 4 CPUs, which Ray does not have: lower cluster\.workers in"):
        adapter.run_training(lambda job, link: None, None, two, [2], lambda event: None, Interrupts())  # type: ignore[arg-type]


class Handle:
    """A mailbox in this process that is called as an actor is."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()

    def __getattr__(self, name: str) -> object:
        method = getattr(self.mailbox, name)
        return type("Method", (), {"remote": staticmethod(method)})


@pytest.mark.parametrize(
    ("last", "error", "room", "expected"),
    [
        (Stopped(5), None, 2, "grows"),
        (CheckpointSaved(8), None, 1, "finished"),
        (CheckpointSaved(8), "lost", 1, "lost"),
    ],
)
def test_a_group_grows_ends_or_is_lost(
    last: Event, error: str | None, room: int, expected: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker sends a checkpoint, then an exception if its peer is lost, then its last event."""
    import ray

    handle, turns = Handle(), iter(range(100))

    class Group:
        def __init__(self) -> None:
            self.error = ray.exceptions.ActorDiedError() if error else None

        def goes_on(self, seconds: float) -> bool:
            """No time passes."""
            turn = next(turns)
            if turn == 1:
                handle.mailbox.send(CheckpointSaved(4))
                if error:
                    handle.mailbox.send(Failed(0, "connection reset", False, "..."))
            if turn == 3:
                handle.mailbox.send(last)
            return turn < 3

        def end(self) -> None:
            """Nothing runs."""

    monkeypatch.setattr(adapter, "_start_group", lambda *_: Group())
    monkeypatch.setattr(adapter, "_start_mailbox", lambda: handle)
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    events: list[Event] = []
    looks = Look([node(number) for number in range(room)], {"CPU": room - 1})
    places = Places([1, 2], {"CPU": 1}, lambda: looks, lambda text: None, 60)
    job = type("Job", (), {"name": "finetune-face"})()
    end = adapter._run_group(lambda job, link: None, job, cluster, 1, places, events.append, Interrupts())
    assert end.how == expected
    assert handle.mailbox.stops_before(0, 9) == (room == 2)
    note = [Note("there is room for 2 workers: stopping to go on with them")] if room == 2 else []
    assert events == [CheckpointSaved(4), *note, last]


def test_a_signal_before_the_workers_have_begun_ends_the_group_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    handle, ended = Handle(), []
    group = type("Group", (), {"error": None, "goes_on": lambda *_: True, "end": lambda _: ended.append(True)})()
    monkeypatch.setattr(adapter, "_start_group", lambda *_: group)
    monkeypatch.setattr(adapter, "_start_mailbox", lambda: handle)
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    places = Places([1], {"CPU": 1}, lambda: free(node(1)), lambda text: None, 60)
    job = type("Job", (), {"name": "finetune-face"})()
    interrupts = Interrupts()
    interrupts.first = 15
    with pytest.raises(Interrupted):
        adapter._run_group(lambda job, link: None, job, cluster, 1, places, lambda event: None, interrupts)
    assert ended


def test_what_ray_says_of_a_group_that_ended() -> None:
    import ray

    from pipelines.adapters.ray_workers import NoRoomError

    class Drained(ray.exceptions.RayActorError):
        preempted = True

    assert adapter._end_with(ray.exceptions.ActorDiedError()).how == "lost"
    assert adapter._end_with(ray.exceptions.ActorUnavailableError("its node is silent", None)).how == "lost"
    assert adapter._end_with(Drained()).how == "announced"
    assert adapter._end_with(NoRoomError()) == adapter._End("not started")
    with pytest.raises(UserError, match="Ray could not run the workers: no such image; the same command resumes"):
        adapter._end_with(ray.exceptions.RuntimeEnvSetupError("no such image"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{min: 2, max: 8}", (2, 8)),
        ("3", (3, 3)),
        ("{min: 3, max: 2}", "min is larger than max"),
        ("{min: 0, max: 2}", "cluster.workers.min is 0: input should be greater than or equal to 1"),
        ("{min: 1, max: 2, most: 3}", "unknown key cluster.workers.most: expected one of max, min"),
        ("{min: 1}", "cluster.workers.max is missing"),
        ("many", "cluster.workers is"),
        ("1.5", "cluster.workers is 1.5"),
    ],
)
def test_workers_are_a_number_or_a_range(text: str, expected: tuple[int, int] | str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    content = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(content.replace("  workers: 2 ", f"  workers: {text} "), encoding="utf-8")
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as caught:
            load_params(path)
        assert expected.startswith("unknown") or len(str(caught.value).splitlines()) == 1
    else:
        found = load_params(path).cluster
        assert (found.fewest_workers, found.most_workers) == expected

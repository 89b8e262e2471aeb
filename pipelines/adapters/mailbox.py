"""The actor between workers and driver. Its process imports neither PyTorch nor the network."""

import time
from dataclasses import dataclass

from pipelines.training.events import Event


@dataclass(frozen=True)
class WorkerState:
    """What the mailbox knows of a worker.

    Attributes:
        silent: seconds since it was last heard.
        place: what it did then.
        since: seconds for which it has done that.
        node: address of its machine.
    """

    silent: float
    place: str
    since: float
    node: str


@dataclass
class _Heard:
    at: float
    place: str
    place_since: float
    node: str


class Mailbox:
    """Keeps what a group of workers sends until the driver takes it, and stops them all before the same step."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._heard: dict[int, _Heard] = {}
        self._asked: dict[int, int] = {}  # rank -> the last step that it asked about
        self._stop: int | None = None
        self._meeting: str | None = None

    def meet(self, address: str) -> None:
        """Rank 0 tells where the workers meet."""
        self._meeting = address

    def meeting(self) -> str | None:
        """Where the workers meet; None: not known yet."""
        return self._meeting

    def send(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    def hello(self, rank: int, node: str) -> None:
        """A worker begins."""
        now = time.monotonic()
        self._heard[rank] = _Heard(now, "starting", now, node)

    def beat(self, rank: int, place: str) -> None:
        """A worker is alive. One that is stopped or hangs in the kernel does not call this."""
        now, heard = time.monotonic(), self._heard[rank]
        heard.at = now
        if place != heard.place:
            heard.place, heard.place_since = place, now

    def stops_before(self, rank: int, step: int) -> bool:
        """Whether the training stops before `step`.

        Every worker asks before each step. `stop` chooses a step that none has asked about yet, so all workers get the
        same answer, without talking to each other.
        """
        self._asked[rank] = step
        return self._stop is not None and step >= self._stop

    def stop(self) -> None:
        """Stop the training before the first step that no worker has begun."""
        if self._stop is None:
            self._stop = max(self._asked.values(), default=-1) + 1

    def take(self) -> tuple[list[Event], dict[int, WorkerState]]:
        """All events since the last call, in the order in which they came, and the state of each worker by rank."""
        now = time.monotonic()
        states = {
            rank: WorkerState(now - heard.at, heard.place, now - heard.place_since, heard.node)
            for rank, heard in sorted(self._heard.items())
        }
        events, self._events = self._events, []
        return events, states

"""How many workers a training has: as many as the cluster's nodes hold, of the numbers that can share the batch.

What a stage says while it waits for a node, and how long it waits, is here too.

Ray Train's elastic mode takes numbers of workers that do not divide the batch, changes the number between two
checkpoints, so that the steps since the last one are lost, and waits without a word.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.running.process import Interrupted, Interrupts
from tcformer.errors import UserError

LOOK_SECONDS = 1.0  # between two looks at the cluster while nothing can start
PATIENCE_SECONDS = 5.0  # in which Ray frees what the last group used
LOSS_SECONDS = 75.0  # in which Ray notices that a node is gone: five checks of 10 s, 3 s apart


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        name: Ray's identifier: a machine that comes back has another one.
        address: of the machine.
        resources: Ray's name of a resource ("CPU", "GPU") -> how much it has.
    """

    name: str
    address: str
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Look:
    """The cluster at one moment.

    Attributes:
        nodes: that are alive.
        free: Ray's name of a resource -> how much of it no task, actor or training uses, on all nodes together.
    """

    nodes: Sequence[Node]
    free: Mapping[str, float]


@dataclass
class Places:
    """Where a stage's workers can be, followed over its whole time.

    Args:
        counts: numbers of workers that can share the batch, ascending.
        need: Ray's name of a resource -> how much of it one worker uses.
        look: asks Ray.
        say: shows a sentence to the person at the terminal.
        limit: minutes that a stage waits for a missing node.
    """

    counts: Sequence[int]
    need: Mapping[str, float]
    look: Callable[[], Look]
    say: Callable[[str], None]
    limit: float
    _waits: tuple[float, str] | None = None  # since when `require_room` waits
    _alive: dict[str, str] = field(default_factory=dict)  # name -> address
    _lost: list[str] = field(default_factory=list)  # addresses of nodes that have not come back
    _clock: Callable[[], float] = time.monotonic
    _sleep: Callable[[float], None] = time.sleep

    def choose(self, interrupts: Interrupts, patience: float = PATIENCE_SECONDS) -> int:
        """The number of workers of the next group: the largest that has room. Waits until the fewest have.

        Args:
            interrupts: notes signals.
            patience: seconds in which resources that living nodes seem to have may become free.

        Raises:
            UserError: the nodes for the fewest workers did not come in time.
            Interrupted: a signal came while waiting.
        """
        began, since = self._clock(), time.strftime("%H:%M")
        told = ""
        while True:
            if interrupts.first is not None:
                raise Interrupted(interrupts.first)
            held, free = self.held()
            waited = self._clock() - began
            count = self._largest(min(held, free))
            # A group that has just ended may still use its resources, and a node that is lost may still be counted.
            if count == self._largest(held) or waited > patience:
                count = count or (self.counts[0] if self.counts[0] <= held else 0)  # Ray waits for what others use
                if count:
                    return count
                text = self._waiting(held, since)
                if text != told:
                    self._say_waiting(text)
                    told = text
            if waited > 60 * self.limit:
                raise self._waited_in_vain(
                    held,
                    since,
                    "or lower cluster.workers; the same command resumes the training from its last checkpoint",
                )
            self._sleep(LOOK_SECONDS)

    def require_room(self) -> None:
        """Say once that the tasks wait, if no living node holds the fewest workers; called repeatedly meanwhile.

        Raises:
            UserError: no node came in time.
        """
        held, _ = self.held()
        if held >= self.counts[0]:  # perhaps others use it: Ray waits for them
            self._waits = None
            return
        if self._waits is None:
            self._waits = self._clock(), time.strftime("%H:%M")
            self._say_waiting(self._waiting(held, self._waits[1]))
        began, since = self._waits
        if self._clock() - began > 60 * self.limit:
            raise self._waited_in_vain(held, since, "and run the same command again")

    def larger(self, present: int) -> int | None:
        """A larger number of workers than those `present` that has room now; None if there is none."""
        if present == self.counts[-1]:
            return None
        held, free = self.held()
        count = self._largest(min(held, present + free))
        return count if count > present else None

    def lost(self) -> str:
        """Which nodes were lost and have not come back: "node 10.0.0.2 was lost"; empty if there are none."""
        if not self._lost:
            return ""
        return f"node{'s' if len(self._lost) > 1 else ''} {', '.join(self._lost)} {_was(self._lost)} lost"

    def held(self) -> tuple[int, int]:
        """How many workers the nodes hold, and for how many nothing else uses the resources now."""
        found = self.look()
        alive = {node.name: node.address for node in found.nodes}
        for name, address in alive.items():
            if name not in self._alive and address in self._lost:
                self._lost.remove(address)
        self._lost += [address for name, address in self._alive.items() if name not in alive]
        self._alive = alive
        return sum(self._fit(node.resources) for node in found.nodes), self._fit(found.free)

    def _fit(self, resources: Mapping[str, float]) -> int:
        return min(int(resources.get(name, 0.0) // amount) for name, amount in self.need.items() if amount)

    def _largest(self, held: int) -> int:
        return max((count for count in self.counts if count <= held), default=0)

    def _say_waiting(self, text: str) -> None:
        self.say(f"{text}; for at most {self.limit:g} minutes (cluster.wait_limit)")

    def _waited_in_vain(self, held: int, since: str, advice: str) -> UserError:
        return UserError(
            f"{self._waiting(held, since)}. None came for {self.limit:g} minutes (cluster.wait_limit): add nodes "
            f"{advice}"
        )

    def _waiting(self, held: int, since: str) -> str:
        lost = self.lost()
        return f"{held} of {self.counts[0]} workers: waiting for a node since {since}{lost and '; '}{lost}"


def _was(names: Sequence[str]) -> str:
    return "were" if len(names) > 1 else "was"

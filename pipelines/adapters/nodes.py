"""The adapter to the nodes of a Ray: one object on every node that answers questions, and a wait for all nodes."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pipelines.adapters.ray import joined_resources
from pipelines.adapters.ray_environment import prepare_environment, require_token
from pipelines.running.process import signal_handlers_kept
from tcformer.errors import UserError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

P = TypeVar("P")  # the object
T = TypeVar("T")  # an answer


@dataclass
class Answers(Generic[T]):
    """What the nodes answered.

    Attributes:
        by_node: node -> answer.
        faults: node -> why there is no answer.
    """

    by_node: dict[str, T] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


class Nodes(Generic[P]):
    """The objects on all nodes.

    Args:
        actors: node's address -> an actor that runs questions.
        seconds: for which an answer is waited for.
    """

    def __init__(self, actors: Mapping[str, "ActorHandle"], seconds: float) -> None:
        self._actors, self._seconds = actors, seconds

    @property
    def addresses(self) -> list[str]:
        """Of the nodes; two Rays with one address are told apart by the beginnings of their ids."""
        return list(self._actors)

    @property
    def resources(self) -> dict[str, float]:
        """What Ray has in all: "CPU", "GPU"."""
        import ray

        return dict(ray.cluster_resources())

    def ask(self, questions: Mapping[str, Callable[[P], T]]) -> Answers[T]:
        """Run a function of the object on each named node, at the same time."""
        import ray

        pending = {node: self._actors[node].run.remote(question) for node, question in questions.items()}
        answers: Answers[T] = Answers()
        deadline = time.monotonic() + self._seconds
        for node, reference in pending.items():
            try:
                answers.by_node[node] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                answers.faults[node] = f"no answer within {self._seconds:.0f} s"
            except Exception as error:  # of Ray, or of what a node lacks
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                answers.faults[node] = (lines or [type(error).__name__])[-1][:300]
        return answers


class _Asked:
    """The actor."""

    def __init__(self, make: Callable[[str], object], address: str) -> None:
        self._it = make(address)

    def run(self, question: Callable[[object], object]) -> object:
        return question(self._it)


@contextmanager
def on_every_node(make: Callable[[str], P], seconds: float) -> Iterator[Nodes[P]]:
    """Make an object on every node of the joined Ray, for the duration of the body. It needs no free core.

    Args:
        make: from the address of its node.
        seconds: for which an answer is waited for.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actors: dict[str, ActorHandle] = {}
    for node in ray.nodes():
        if node["Alive"]:
            address = node["NodeManagerAddress"]
            name = address if address not in actors else f"{address} ({node['NodeID'][:6]})"
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            actor = ray.remote(num_cpus=0)(_Asked).options(scheduling_strategy=there)
            actors[name] = actor.remote(make, address)
    try:
        yield Nodes(actors, seconds)
    finally:
        for each in actors.values():
            ray.kill(each)


def wait_for_nodes(address: str, number: int, seconds: float) -> None:
    """Wait until the Ray at an address answers and has so many nodes.

    Raises:
        UserError: it does not answer in time, or has fewer nodes.
    """
    prepare_environment(local=False)
    require_token(address)
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    alive = 0
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            alive = _nodes_of(address)
        except (OSError, RuntimeError) as error:  # it is not ready
            print(f"waiting for the Ray at {address} ({type(error).__name__})", flush=True)
        if alive >= number:
            return
        time.sleep(2)
    raise UserError(
        f"the Ray at {address} has {alive} of {number} nodes after {seconds:.0f} s: expected all of them; look at "
        "the output of `ray start` on the others"
    )


def _nodes_of(address: str) -> int:
    """The number of living nodes of a Ray."""
    import ray

    with signal_handlers_kept():
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    try:
        return joined_resources()[0]
    finally:
        ray.shutdown()

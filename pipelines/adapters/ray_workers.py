"""A group of training processes: Ray actors in a placement group, all of them or none.

Ray Train is not used. Restarts, numbers of workers, signals and checkpoints are decided in `ray.py` and `elastic.py`,
and what it would add is two more processes (its controller and one where workers wait for each other) and its import in
each process: a stage's start took 4 s longer with it on two cores.

A worker's process imports this module before it knows its GPUs, so nothing here may import PyTorch before `run`.
"""

import os
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipelines.training.events import Event, Failed
from tcformer.errors import UserError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

BEAT_SECONDS = 1.0  # between a worker's signs of life
ROOM_SECONDS = 60.0  # for Ray to find room for a group


@dataclass(frozen=True)
class Place:
    """Where a worker's process runs.

    Attributes:
        node: Ray's name of the machine.
        gpus: numbers of the GPUs that Ray gave it.
    """

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """What a worker is in its group.

    Attributes:
        rank: number among all workers.
        local_rank: number among those of its machine; of its GPU among `gpus`.
        count: number of workers.
        gpus: numbers of the GPUs of all workers of its machine, so that NCCL can copy from one to another.
    """

    rank: int
    local_rank: int
    count: int
    gpus: tuple[str, ...]


def members(places: list[Place]) -> list[Member]:
    """Ranks for workers at these places: machine by machine, in the order of their GPUs."""
    nodes = list(dict.fromkeys(place.node for place in places))
    order = sorted(range(len(places)), key=lambda i: (nodes.index(places[i].node), *map(int, places[i].gpus), i))
    found: dict[int, Member] = {}
    for rank, index in enumerate(order):
        own = [i for i in order if places[i].node == places[index].node]
        gpus = tuple(gpu for i in own for gpu in places[i].gpus)
        found[index] = Member(rank, own.index(index), len(places), gpus)
    return [found[index] for index in range(len(places))]


@dataclass(frozen=True)
class Assignment:
    """What a group of workers does; it is sent to each of them.

    Attributes:
        work: `worker, job`, pickled; `worker(job, link)` trains.
        mailbox: to the driver.
        loopback: whether all workers are on the driver's machine.
    """

    work: bytes
    mailbox: "ActorHandle"
    loopback: bool


class TrainingWorker:
    """The actor of a training process."""

    def place(self) -> Place:
        """Where it runs."""
        context = ray.get_runtime_context()
        return Place(context.get_node_id(), tuple(map(str, context.get_accelerator_ids().get("GPU", ()))))

    def run(self, member: Member, assignment: Assignment) -> None:
        """Train. An exception is sent to the mailbox, and the worker ends normally."""
        if member.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(member.gpus)  # read when PyTorch first uses CUDA
        os.environ["LOCAL_RANK"] = str(member.local_rank)  # read by DeepSpeed
        import torch

        mailbox = assignment.mailbox
        try:
            link = _MailboxLink(mailbox, member.rank)
            link.at("meeting the other workers")
            if member.gpus:
                torch.cuda.set_device(member.local_rank)
            _join_group(member, assignment)
            work, job = ray.cloudpickle.loads(assignment.work)
            work(job, link)
            link.flush()
        except Exception as error:
            failed = Failed(member.rank, str(error), isinstance(error, UserError), traceback.format_exc())
            ray.get(mailbox.send.remote(failed))
            time.sleep(1)  # the cause's event arrives before those of the ranks that now lose their peer
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _join_group(member: Member, assignment: Assignment) -> None:
    from pipelines.adapters.rendezvous import LOOPBACK, join_group

    mailbox = assignment.mailbox

    def address() -> str:
        while not (known := ray.get(mailbox.meeting.remote())):
            time.sleep(0.05)
        return str(known)

    join_group(
        "nccl" if member.gpus else "gloo",
        member.rank,
        member.count,
        LOOPBACK if assignment.loopback else ray.util.get_node_ip_address(),
        lambda place: ray.get(mailbox.meet.remote(place)),
        address,
    )


class _MailboxLink:
    """A worker's link to the driver, through the mailbox; see `pipelines.training.link.Link`."""

    def __init__(self, mailbox: "ActorHandle", rank: int) -> None:
        self._mailbox, self._rank, self._place = mailbox, rank, "starting"
        self._sent = mailbox.hello.remote(rank, ray.util.get_node_ip_address())
        self.flush()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def send(self, event: Event) -> None:
        self._sent = self._mailbox.send.remote(event)

    def flush(self) -> None:
        """Wait until the mailbox has all events: the driver looks into it once more when this worker has ended."""
        ray.get(self._sent)  # calls of one process are answered in order

    def stops_before(self, step: int) -> bool:
        answer: bool = ray.get(self._mailbox.stops_before.remote(self._rank, step))
        return answer

    def at(self, place: str) -> None:
        self._place = place

    def _beat(self) -> None:
        while True:
            self._mailbox.beat.remote(self._rank, self._place)
            time.sleep(BEAT_SECONDS)


class NoRoomError(Exception):
    """Ray has no room for the group now."""


class WorkerGroup:
    """The processes of one group, as the driver sees them.

    Args:
        assignment: what they do.
        count: their number.
        need: resources of each, by Ray's names.

    Attributes:
        error: with which the group ended: NoRoomError, or Ray's own for a process that it lost.
    """

    def __init__(self, assignment: Assignment, count: int, need: Mapping[str, float]) -> None:
        self._assignment, self._count, self._need = assignment, count, need
        self._room = placement_group([dict(need)] * count, strategy="PACK")
        self._asked = time.monotonic()
        self._workers: list[ActorHandle] = []
        self._places: list[object] = []  # references to answers
        self._waits: list[object] = []  # for these references
        self.error: Exception | None = None

    def goes_on(self, seconds: float) -> bool:
        """Wait at most so long for something to happen to the group, and return whether it goes on."""
        if not self._workers:
            if self._room.wait(seconds):
                self._start()
            elif time.monotonic() - self._asked > ROOM_SECONDS:
                self.error = NoRoomError()
            return self.error is None
        ready, self._waits = ray.wait(self._waits, timeout=seconds)
        try:
            ray.get(ready)
            if not self._waits and self._places:
                placed, self._places = members(ray.get(self._places)), []
                self._waits = [
                    worker.run.remote(member, self._assignment)
                    for worker, member in zip(self._workers, placed, strict=True)
                ]
        except ray.exceptions.RayError as error:
            self.error = error
        return bool(self._waits) and self.error is None

    def _start(self) -> None:
        cpus, gpus = self._need["CPU"], self._need.get("GPU", 0)
        for bundle in range(self._count):
            strategy = PlacementGroupSchedulingStrategy(self._room, bundle)
            actor = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=strategy)(TrainingWorker)
            self._workers.append(actor.remote())
        self._places = [worker.place.remote() for worker in self._workers]
        self._waits = list(self._places)

    def end(self) -> None:
        """End the processes that still run, and free what they had."""
        for worker in self._workers:
            ray.kill(worker)
        remove_placement_group(self._room)

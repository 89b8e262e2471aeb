"""The Ray adapter: start or join a Ray, run a training on its workers, map a function over its cores.

Workers need neither a shared disk with the driver nor MLflow: they read and write through a store and send events to
the driver's mailbox.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pipelines.adapters.elastic import LOOK_SECONDS, LOSS_SECONDS, PATIENCE_SECONDS, Look, Node, Places
from pipelines.adapters.mailbox import Mailbox
from pipelines.adapters.ray_environment import (
    folder_for_ray,
    give_token,
    not_joined,
    prepare_environment,
    require_token,
    start_patiently,
)
from pipelines.adapters.storage import environment_of
from pipelines.adapters.watch import Watch
from pipelines.layout import ROOT
from pipelines.params import Cluster
from pipelines.running.process import Interrupted, Interrupts, runs_locally, signal_handlers_kept
from pipelines.running.progress import Progress
from pipelines.running.redaction import redacted
from pipelines.training.events import CheckpointSaved, Event, Failed, Note, Stopped
from tcformer.errors import UserError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from pipelines.adapters.ray_workers import WorkerGroup
    from pipelines.training.job import Job
    from pipelines.training.link import Link

TrainingFunction = Callable[["Job", "Link"], None]
POLL_SECONDS = 0.5
SAY_SECONDS = 30.0  # between two lines on what tasks do
STOP_SECONDS = 60.0  # for the checkpoint, after which a training that was asked to stop ends without one
SHARED = "TCFORMER_SHARED_RAY"  # "1": RAY_ADDRESS is a Ray of this machine that shared_ray started


def _on_this_machine(cluster: Cluster) -> bool:
    """Whether the stage's Ray is one that we started on this machine, for it alone or for several stages."""
    return os.environ.get(SHARED) == "1" or not (cluster.address or os.environ.get("RAY_ADDRESS"))


def needs_storage(cluster: Cluster) -> bool:
    """Whether data go through `cluster.storage`: Ray's nodes may be machines that share no other disk with this one."""
    return bool(cluster.storage) and not runs_locally() and not _on_this_machine(cluster)


@contextmanager
def session(cluster: Cluster, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Join the Ray at `cluster.address` or RAY_ADDRESS, or start one for the duration on this machine.

    A stage that runs locally (see `runs_locally`) gets none.

    Args:
        cluster: says where.
        environment: variables that the workers have before they import anything; None: none.

    Raises:
        UserError: no Ray answers at the address, its versions differ, it is open to everybody; or none starts here.
    """
    if runs_locally():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    shared = os.environ.get(SHARED) == "1"
    prepare_environment(local=_on_this_machine(cluster))
    if not address:
        give_token()
    elif not shared:
        require_token(address)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    variables = {**environment_of(cluster.storage), **(environment or {})}
    runtime_env: dict[str, Any] = {"env_vars": variables} if variables else {}
    if address:
        # Ray copies the code to nodes that have only the environment installed. Not needed on this machine, nor in a
        # job that `ray job submit` sent: the code is there already.
        if not shared and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            excludes = ["/.git", "/.venv", "/data", "/runs", "/tests", "/docs"]
            runtime_env |= {"working_dir": str(ROOT), "excludes": excludes}
        try:
            with signal_handlers_kept():  # Ray's own end the process with a C++ stack
                ray.init(address=address, runtime_env=runtime_env or None, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise not_joined(address, error) from None
    else:
        # More workers than cores are slow but allowed.
        cores = max(os.cpu_count() or 1, cluster.fewest_workers * cluster.cpus_per_worker)
        place = str(folder_for_ray())
        quiet |= {"num_cpus": cores, "include_dashboard": False, "_temp_dir": place, "runtime_env": runtime_env or None}
        start = partial(ray.init, "local", **quiet)
        with signal_handlers_kept():
            start_patiently(start, ray.shutdown)
    _silence_raylets()
    try:
        yield
    finally:
        ray.shutdown()


def _silence_raylets() -> None:
    """Keep what Ray's own processes report in Ray's logs: `log_to_driver` leaves out what workers print only."""
    import ray._private.worker

    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def address_of_session() -> str:
    """Address at which other processes join the Ray of this session."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def joined_resources() -> tuple[int, int]:
    """Number of machines and of GPUs of the joined Ray."""
    import ray

    return sum(node["Alive"] for node in ray.nodes()), int(ray.cluster_resources().get("GPU", 0))


def uses_gpus() -> bool:
    """Whether the joined Ray has GPUs; it does not matter where there is no Ray."""
    if runs_locally():
        return False
    import ray

    return bool(ray.cluster_resources().get("GPU", 0))


def run_training(
    worker: TrainingFunction,
    job: "Job",
    cluster: Cluster,
    counts: Sequence[int],
    on_event: Callable[[Event], None],
    interrupts: Interrupts,
) -> None:
    """Run `worker(job, link)` on every training process and pass its events to `on_event`, in order, as they come.

    A lost worker (killed, out of memory, its node gone) restarts the group up to `cluster.max_failures` times; the
    worker function resumes from its newest checkpoint. Each group has the largest of the given numbers of workers that
    the cluster has room for. If a node comes, the group stops after its next checkpoint, and a larger one goes on. An
    exception in our code is not retried: it ends the training after seconds, even if the other workers wait for the
    one that raised it. When `interrupts` notes a signal, all workers take a checkpoint and stop before the same step.

    Args:
        worker: what each training process does.
        job: what to train.
        cluster: where.
        counts: numbers of workers that can share the batch, ascending.
        on_event: receives the events.
        interrupts: notes signals.

    Raises:
        UserError: raised in a worker, a worker hangs or is lost too often, or not enough CPUs or GPUs for the workers.
        RuntimeError: any other exception in a worker, with its traceback.
        Interrupted: a signal stopped the training.
    """
    gpus = uses_gpus()
    need = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if gpus else {})}

    def say(text: str) -> None:
        on_event(Note(text))

    places = Places(counts, need, _look_at_cluster, say, cluster.wait_limit)
    held, _ = places.held()
    if held < counts[0] and _on_this_machine(cluster):  # no other node will come
        kind = "GPU" if gpus else "CPU"
        raise UserError(
            f"cluster.workers asks for {counts[0] * need[kind]} {kind}s, which Ray does not have: lower "
            "cluster.workers in params.yaml or join a larger cluster"
        )
    failures, before = 0, 0
    while True:
        count = places.choose(interrupts, LOSS_SECONDS if before else PATIENCE_SECONDS)
        if count < counts[-1] and before and count != before:
            lost = places.lost()
            say(f"goes on with {count} of {counts[-1]} workers{lost and '; '}{lost}")
        before = count
        end = _run_group(worker, job, cluster, count, places, on_event, interrupts)
        if end.how == "finished":
            return
        if end.how == "lost":
            failures += 1
            if failures > cluster.max_failures:
                raise UserError(
                    f"training {job.name} lost its workers more than cluster.max_failures = {cluster.max_failures} "
                    f"times; the same command resumes it from the last checkpoint. The last failure: {end.reason}"
                )
            say(f"a worker was lost, failure {failures} of at most {cluster.max_failures}: restarting")
        elif end.how == "not started":
            say(f"no room for {count} workers, because something else uses it: trying again")


@dataclass(frozen=True)
class _End:
    """How a group of workers ended: the training is finished, or another group goes on.

    Attributes:
        how: it grows to more workers; or it lost a worker, without its fault if its node announced its end; or Ray had
            no room for it.
        reason: of a loss, in Ray's words.
    """

    how: Literal["finished", "grows", "lost", "announced", "not started"]
    reason: str = ""


def _look_at_cluster() -> Look:
    import ray

    nodes = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    ]
    return Look(nodes, ray.available_resources())


def _start_mailbox() -> "ActorHandle":
    """A mailbox on the node of this process: elsewhere it would be lost with its node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()


def _run_group(
    worker: TrainingFunction,
    job: "Job",
    cluster: Cluster,
    count: int,
    places: Places,
    on_event: Callable[[Event], None],
    interrupts: Interrupts,
) -> _End:
    """Run one group of `count` workers until the training is finished, or until another group has to go on.

    Its mailbox is its own, so that what workers of an earlier group still send reaches nobody.

    Raises:
        UserError, RuntimeError, Interrupted: see `run_training`.
    """
    import ray

    mailbox = _start_mailbox()
    group = _start_group(worker, job, cluster, mailbox, count, places.need)
    watch = Watch(cluster.stall_timeout, lambda text: on_event(Note(text)))
    failure: Failed | None = None
    failed_at = asked_at = 0.0
    stopped = grows = False
    try:
        while True:
            running = group.goes_on(POLL_SECONDS)  # asked first: what workers sent before their end is then taken below
            events, workers = ray.get(mailbox.take.remote())
            for event in events:
                if isinstance(event, Failed):
                    failure, failed_at = failure or event, failed_at if failure else time.monotonic()
                    continue
                stopped = stopped or isinstance(event, Stopped)
                on_event(event)
                if isinstance(event, CheckpointSaved) and not grows and (larger := places.larger(count)):
                    on_event(Note(f"there is room for {larger} workers: stopping to go on with them"))
                    mailbox.stop.remote()
                    grows = True
            if not running or (failure and watch.failure_is_final(time.monotonic() - failed_at, workers)):
                break
            reason = watch.stall(workers)
            if reason and not failure:
                raise UserError(
                    f"training {job.name} stalls: {reason}. Look at that process and its machine; the same command "
                    "resumes from the last checkpoint. The limit is cluster.stall_timeout"
                )
            if interrupts.first is not None and not workers:
                break
            if interrupts.first is not None and not asked_at:
                asked_at = time.monotonic()
                on_event(Note("stopping after the present step, with a checkpoint; once more to stop at once"))
                mailbox.stop.remote()
            if asked_at and time.monotonic() - asked_at > STOP_SECONDS:
                on_event(Note(f"no checkpoint within {STOP_SECONDS:.0f} s: stopping without one"))
                break
    finally:
        group.end()
    if failure and not group.error:  # else the exceptions are those of a lost worker's peers
        if failure.from_user:
            raise UserError(failure.message)
        raise RuntimeError(f"training {job.name} failed on rank {failure.rank}:\n{failure.traceback}")
    if interrupts.first is not None and (stopped or running):
        raise Interrupted(interrupts.first)
    if group.error:
        return _end_with(group.error)
    return _End("grows" if stopped else "finished")


def _start_group(
    worker: TrainingFunction,
    job: "Job",
    cluster: Cluster,
    mailbox: "ActorHandle",
    count: int,
    need: Mapping[str, float],
) -> "WorkerGroup":
    from ray import cloudpickle

    from pipelines.adapters.ray_workers import Assignment, WorkerGroup

    work = cloudpickle.dumps((worker, job))
    return WorkerGroup(Assignment(work, mailbox, _on_this_machine(cluster)), count, need)


def _end_with(error: Exception) -> _End:
    """How a group ended that had this error; raises UserError if no other group would go on."""
    from ray.exceptions import RayActorError

    from pipelines.adapters.ray_workers import NoRoomError

    if isinstance(error, NoRoomError):
        return _End("not started")
    if isinstance(error, RayActorError):
        return _End("announced" if error.preempted else "lost", _last_line(error))
    raise UserError(
        f"Ray could not run the workers: {_last_line(error)}; the same command resumes from the last checkpoint"
    ) from error


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def parallel_map(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    wait_limit: float,
    gpus: bool = False,
    chunk: int = 1,
    title: str = "",
    reports: bool = False,
) -> list[Any]:
    """`[function(item) for item in items]` on the cores (or GPUs) of the joined Ray, in order, with a progress bar.

    Args:
        function: picklable, of one argument.
        items: its arguments.
        wait_limit: minutes to wait while no node has a core (and a GPU); see `cluster.wait_limit`.
        gpus: whether each task needs a GPU.
        chunk: items that one Ray task does in turn.
        title: begins each line that is shown.
        reports: whether `function` has a second argument, to which it passes, in a few words, what it does while it
            takes long. The words are shown here at most every `SAY_SECONDS`.

    Raises:
        UserError: raised by `function`; no node came in time; or a task lost its process more often than Ray retries.
    """
    todo = list(items)
    if runs_locally():
        return _map_here(function, todo, title)
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_apply)
    parts = [todo[start : start + chunk] for start in range(0, len(todo), chunk)]
    shared = ray.put(function)  # an object, because it may contain weights that are too large for an argument
    mailbox = _start_mailbox() if reports else None
    pending = {remote.remote(shared, part, mailbox): index for index, part in enumerate(parts)}
    results: list[list[Any]] = [[] for _ in parts]
    with Progress(title, len(todo)) as progress:
        say = progress.message if title else partial(print, flush=True)
        at = Seldom(say)
        places = Places([1], {"CPU": 1, **({"GPU": 1} if gpus else {})}, _look_at_cluster, say, wait_limit)
        places.held()  # so that a node that is lost from now on is known by its address
        waiting = list(pending)
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK_SECONDS)
            for reference in ready:
                index = pending[reference]
                results[index] = _result_of(reference, title)
                progress.update(len(parts[index]))
            if not ready:
                places.require_room()
                if mailbox:
                    for note in ray.get(mailbox.take.remote())[0]:
                        at(note.text)
    return [result for part in results for result in part]


def _apply(function: Callable[..., Any], part: list[Any], mailbox: "ActorHandle | None") -> list[Any]:
    """Runs in a Ray task."""
    if mailbox is None:
        return [function(item) for item in part]
    import ray

    address = ray.util.get_node_ip_address()
    at = Seldom(lambda text: mailbox.send.remote(Note(f"{address}: {text}")))
    return [function(item, at) for item in part]


class Seldom:
    """Passes texts on, at most one in `SAY_SECONDS`, and forgets the others."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._said_at: float | None = None

    def __call__(self, text: str) -> None:
        now = self._clock()
        if self._said_at is None or now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            self._say(text)


def _result_of(reference: object, title: str) -> list[Any]:
    import ray

    try:
        found: list[Any] = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise
    except ray.exceptions.OutOfMemoryError as error:
        reason, advice = _first_sentence(error), "its node has too little memory: stop what else uses it, or add memory"
    except ray.exceptions.WorkerCrashedError as error:
        reason, advice = (
            _first_sentence(error),
            "the system ended it, often for lack of memory: see `dmesg` on the nodes",
        )
    except ray.exceptions.NodeDiedError as error:
        reason, advice = _first_sentence(error), "see why the node was lost, and bring it back or remove it"
    raise UserError(
        f"{title or 'a task'}: Ray lost a process more often than it tries again ({reason}): expected nodes that stay; "
        f"{advice}; then run the same command again"
    )


def _first_sentence(error: Exception) -> str:
    return redacted(" ".join(str(error).split()).partition(". ")[0].rstrip("."))[:200] or type(error).__name__


def _map_here(function: Callable[..., Any], items: list[Any], title: str) -> list[Any]:
    results = []
    with Progress(title, len(items)) as progress:
        for item in items:
            results.append(function(item))
            progress.update(1)
    return results

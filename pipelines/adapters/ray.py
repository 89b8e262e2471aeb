"""The Ray adapter: start or join a Ray, run a training on its workers, map a function over its cores.

Workers need neither a shared disk with the driver nor MLflow: they read and write through a store and send events to
the driver's mailbox.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.adapters.mailbox import Mailbox
from pipelines.adapters.ray_environment import (
    folder_for_ray,
    give_token,
    not_joined,
    prepare_environment,
    require_token,
    start_patiently,
)
from pipelines.adapters.storage import below, environment_of
from pipelines.adapters.watch import Watch
from pipelines.params import Cluster
from pipelines.process import Interrupted, Interrupts, runs_locally, signal_handlers_kept
from pipelines.progress import Progress
from pipelines.provenance import ROOT
from pipelines.training.events import Event, Failed, Note, Started, Stopped
from tcformer.errors import UserError

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.train.torch import TorchConfig

    from pipelines.training.job import Job
    from pipelines.training.link import Link

TrainingFunction = Callable[["Job", "Link"], None]
POLL_SECONDS = 0.5
BEAT_SECONDS = 1.0  # between a worker's signs of life
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
        cores = max(os.cpu_count() or 1, cluster.workers * cluster.cpus_per_worker)
        place = str(folder_for_ray())
        quiet |= {"num_cpus": cores, "include_dashboard": False, "_temp_dir": place, "runtime_env": runtime_env or None}
        start = partial(ray.init, "local", **quiet)
        with signal_handlers_kept():
            start_patiently(start, ray.shutdown)
    try:
        yield
    finally:
        ray.shutdown()


def address_of_session() -> str:
    """Address at which other processes join the Ray of this session."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def uses_gpus() -> bool:
    """Whether the joined Ray has GPUs; it does not matter where there is no Ray."""
    if runs_locally():
        return False
    import ray

    return bool(ray.cluster_resources().get("GPU", 0))


def run_training(
    worker: TrainingFunction, job: "Job", cluster: Cluster, on_event: Callable[[Event], None], interrupts: Interrupts
) -> None:
    """Run `worker(job, link)` on every training process and pass its events to `on_event`, in order, as they come.

    A lost worker (killed, out of memory, its node gone) restarts the group up to `cluster.max_failures` times; the
    worker function resumes from its newest checkpoint. An exception in our code is not retried: it ends the training
    after seconds, even if the other workers wait for the one that raised it. When `interrupts` notes a signal, all
    workers take a checkpoint and stop before the same step.

    Raises:
        UserError: raised in a worker, a worker hangs, or not enough CPUs or GPUs for the workers.
        RuntimeError: any other exception in a worker, with its traceback.
        Interrupted: a signal stopped the training.
    """
    import ray

    gpus = uses_gpus()
    have, kind = ray.cluster_resources(), "GPU" if gpus else "CPU"
    need = cluster.workers if gpus else cluster.workers * cluster.cpus_per_worker
    if have.get(kind, 0) < need:
        raise UserError(
            f"cluster.workers asks for {need} {kind}s, Ray has {have.get(kind, 0):g}: lower cluster.workers in "
            "params.yaml or join a larger cluster"
        )
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    fit = _Fit(worker, job, cluster, mailbox, gpus)
    watch = Watch(cluster.stall_timeout, lambda text: on_event(Note(text)))
    failure: Failed | None = None
    failed_at = asked_at = 0.0
    stopped = False
    fit.start()
    while True:
        running = fit.is_alive()  # asked first: what the workers sent before their end is then taken below
        events, workers = ray.get(mailbox.take.remote())
        for event in events:
            if isinstance(event, Failed):
                failure, failed_at = failure or event, failed_at if failure else time.monotonic()
                continue
            if isinstance(event, Started):
                failure = None  # what the survivors of a lost worker reported is settled by the restart
            stopped = stopped or isinstance(event, Stopped)
            on_event(event)
        if not running or (failure and watch.failure_is_final(failure.rank, time.monotonic() - failed_at, workers)):
            break
        reason = watch.stall(workers)
        if reason and not failure:
            raise UserError(
                f"training {job.name} stalls: {reason}. Look at that process and its machine; the same command resumes "
                "from the last checkpoint. The limit is cluster.stall_timeout"
            )
        if interrupts.first is not None and not asked_at:
            asked_at = time.monotonic()
            on_event(Note("stopping after the present step, with a checkpoint; once more to stop at once"))
            mailbox.stop.remote()
        if asked_at and time.monotonic() - asked_at > STOP_SECONDS:
            on_event(Note(f"no checkpoint within {STOP_SECONDS:.0f} s: stopping without one"))
            break
        fit.join(POLL_SECONDS)
    if failure and not fit.error:  # else Ray gave up restarting; the exceptions are those of the lost worker's peers
        if failure.from_user:
            raise UserError(failure.message)
        raise RuntimeError(f"training {job.name} failed on rank {failure.rank}:\n{failure.traceback}")
    if interrupts.first is not None and (stopped or running):
        raise Interrupted(interrupts.first)
    if fit.error:
        raise fit.error


class _Fit(threading.Thread):
    """Ray Train's blocking call: it stays in there for as long as one worker waits for another.

    Attributes:
        error: with which it ended.
    """

    def __init__(
        self, worker: TrainingFunction, job: "Job", cluster: Cluster, mailbox: "ActorHandle", gpus: bool
    ) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._worker, self._job, self._cluster, self._mailbox, self._gpus = worker, job, cluster, mailbox, gpus
        self.error: Exception | None = None

    def run(self) -> None:
        import ray.train
        from ray.train.torch import TorchTrainer

        job, cluster = self._job, self._cluster
        trainer = TorchTrainer(
            _run_worker,
            train_loop_config={"worker": self._worker, "job": job, "mailbox": self._mailbox},
            scaling_config=ray.train.ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=self._gpus,
                resources_per_worker={"CPU": cluster.cpus_per_worker, **({"GPU": 1} if self._gpus else {})},
            ),
            torch_config=_torch_config("nccl" if self._gpus else "gloo", _on_this_machine(cluster)),
            run_config=ray.train.RunConfig(
                # A name of its own for each attempt: Ray resumes runs by name, ours resume from our own checkpoints.
                name=f"{job.name}-{uuid.uuid4().hex[:8]}",
                storage_path=below(job.store, "ray"),
                failure_config=ray.train.FailureConfig(max_failures=cluster.max_failures),
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            self.error = UserError(
                f"training {job.name} lost its workers more than cluster.max_failures = {cluster.max_failures} times; "
                f"the same command resumes it from the last checkpoint. The last failure: {_last_line(error)}"
            )
        except Exception as error:
            self.error = error


def _torch_config(backend: str, loopback: bool) -> "TorchConfig":
    """How the workers form a group of PyTorch.

    Args:
        backend: "gloo" or "nccl".
        loopback: whether they are all on this machine, so that nothing listens on the network.
    """
    import ray
    from ray.train._internal.base_worker_group import BaseWorkerGroup
    from ray.train.torch import TorchConfig
    from ray.train.torch import config as of_ray

    from pipelines.adapters import rendezvous

    if not loopback:
        return TorchConfig(backend=backend)

    class LoopbackBackend(of_ray._TorchBackend):
        def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
            """As Ray's, but for the address at which the workers meet: Ray's store listens on every interface."""
            address = worker_group.execute_single(0, rendezvous.listen)
            worker_group.execute(rendezvous.register)
            worker_group.execute(of_ray._set_torch_distributed_env_vars)
            ranks = len(worker_group)
            join = of_ray._setup_torch_process_group
            arguments = {"backend": backend, "world_size": ranks, "init_method": address}
            ray.get([worker_group.execute_single_async(i, join, world_rank=i, **arguments) for i in range(ranks)])

    class LoopbackConfig(TorchConfig):
        @property
        def backend_cls(self) -> type[LoopbackBackend]:
            return LoopbackBackend

    return LoopbackConfig(backend=backend)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _MailboxLink:
    """A worker's link to the driver, through the mailbox; see `pipelines.training.link.Link`."""

    def __init__(self, mailbox: "ActorHandle", rank: int) -> None:
        import ray

        self._mailbox, self._rank, self._place = mailbox, rank, "starting"
        ray.get(mailbox.hello.remote(rank, ray.util.get_node_ip_address()))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def send(self, event: Event) -> None:
        self._mailbox.send.remote(event)

    def stops_before(self, step: int) -> bool:
        import ray

        answer: bool = ray.get(self._mailbox.stops_before.remote(self._rank, step))
        return answer

    def at(self, place: str) -> None:
        self._place = place

    def _beat(self) -> None:
        while True:
            self._mailbox.beat.remote(self._rank, self._place)
            time.sleep(BEAT_SECONDS)


def _run_worker(config: dict[str, Any]) -> None:
    """Runs in each worker: an exception is sent and the worker ends normally, so that Ray does not retry it."""
    import traceback

    import ray
    import ray.train
    import torch

    rank = ray.train.get_context().get_world_rank()
    mailbox = config["mailbox"]
    try:
        config["worker"](config["job"], _MailboxLink(mailbox, rank))
    except Exception as error:
        failed = Failed(rank, str(error), isinstance(error, UserError), traceback.format_exc())
        ray.get(mailbox.send.remote(failed))
        time.sleep(1)  # the cause's event arrives before those of the ranks that now lose their peer
        torch.distributed.destroy_process_group()


def parallel_map(
    function: Callable[[Any], Any], items: Iterable[Any], *, gpus: bool = False, chunk: int = 1, title: str = ""
) -> list[Any]:
    """`[function(item) for item in items]` on the cores (or GPUs) of the joined Ray, in order, with a progress bar.

    Args:
        function: picklable, of one argument.
        chunk: items that one Ray task does in turn.
    """
    todo = list(items)
    if runs_locally():
        return _map_here(function, todo, title)
    import ray

    def apply(function: Callable[[Any], Any], part: list[Any]) -> list[Any]:
        return [function(item) for item in part]

    remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(apply)
    parts = [todo[start : start + chunk] for start in range(0, len(todo), chunk)]
    shared = ray.put(function)  # an object, because it may contain weights that are too large for an argument
    pending = {remote.remote(shared, part): index for index, part in enumerate(parts)}
    results: list[list[Any]] = [[] for _ in parts]
    with Progress(title, len(todo)) as progress:
        waiting = list(pending)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                index = pending[reference]
                try:
                    results[index] = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, UserError):
                        raise UserError(str(cause)) from None
                    raise
                progress.update(len(parts[index]))
    return [result for part in results for result in part]


def _map_here(function: Callable[[Any], Any], items: list[Any], title: str) -> list[Any]:
    results = []
    with Progress(title, len(items)) as progress:
        for item in items:
            results.append(function(item))
            progress.update(1)
    return results

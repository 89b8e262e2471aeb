"""What Ray Train's processes import: its controller, and the workers before they import PyTorch.

Ray starts a process for each of its actors, and each import costs a part of every stage's start. So nothing here may
import PyTorch before a worker needs it, and two actors of Ray Train's that have nothing to do here are left out.
"""

import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, RayTrainCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pipelines.training.events import Event, Failed
from tcformer.errors import UserError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

BEAT_SECONDS = 1.0  # between a worker's signs of life


class Trainer(DataParallelTrainer):
    """Ray Train without its actor for Ray Data, which is not used, and the one that frees the workers' resources if the
    controller alone is lost: the driver ends then, and Ray frees what its job had."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]


class IntroduceController(ControllerCallback):
    """Has Ray Train's controller, an actor without a name, give the mailbox its handle."""

    def __init__(self, mailbox: "ActorHandle") -> None:
        self._mailbox = mailbox

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Called by Ray Train in the controller."""
        self._mailbox.set_controller.remote(ray.get_runtime_context().current_actor)


class _SeesAllGpus(Backend):
    share_cuda_visible_devices = True


class SeesAllGpus(BackendConfig):
    """Ray Train starts processes that see all GPUs of their machine. They form the group themselves, so that Ray's
    controller need not import PyTorch, and nothing listens on other addresses than it must."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Called by Ray Train."""
        return _SeesAllGpus


class _MailboxLink:
    """A worker's link to the driver, through the mailbox; see `pipelines.training.link.Link`."""

    def __init__(self, mailbox: "ActorHandle", rank: int) -> None:
        self._mailbox, self._rank, self._place = mailbox, rank, "starting"
        ray.get(mailbox.hello.remote(rank, ray.util.get_node_ip_address()))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def send(self, event: Event) -> None:
        self._mailbox.send.remote(event)

    def stops_before(self, step: int) -> bool:
        answer: bool = ray.get(self._mailbox.stops_before.remote(self._rank, step))
        return answer

    def at(self, place: str) -> None:
        self._place = place

    def _beat(self) -> None:
        while True:
            self._mailbox.beat.remote(self._rank, self._place)
            time.sleep(BEAT_SECONDS)


def run_worker(config: dict[str, Any]) -> None:
    """Runs in each worker: an exception is sent and the worker ends normally, so that Ray does not retry it."""
    import torch

    context, mailbox = ray.train.get_context(), config["mailbox"]
    rank = context.get_world_rank()
    try:
        link = _MailboxLink(mailbox, rank)
        link.at("meeting the other workers")
        _join_group(config, context, mailbox)
        work, job = ray.cloudpickle.loads(config["work"])
        work(job, link)
    except Exception as error:
        failed = Failed(rank, str(error), isinstance(error, UserError), traceback.format_exc())
        ray.get(mailbox.send.remote(failed))
        time.sleep(1)  # the cause's event arrives before those of the ranks that now lose their peer
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _join_group(config: dict[str, Any], context: ray.train.TrainContext, mailbox: "ActorHandle") -> None:
    """Form the process group of the workers; each computes on the GPU that Ray gave it."""
    from pipelines.adapters.rendezvous import LOOPBACK, join_group

    def address() -> str:
        while not (known := ray.get(mailbox.meeting.remote())):
            time.sleep(0.05)
        return str(known)

    os.environ["LOCAL_RANK"] = str(context.get_local_rank())  # read by DeepSpeed
    if config["backend"] == "nccl":
        import torch
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    host = LOOPBACK if config["loopback"] else ray.util.get_node_ip_address()
    join_group(
        config["backend"],
        context.get_world_rank(),
        context.get_world_size(),
        host,
        lambda place: ray.get(mailbox.meet.remote(place)),
        address,
    )

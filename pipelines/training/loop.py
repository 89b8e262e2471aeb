"""The training loop: one for all tasks. It runs in every worker."""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from pipelines.adapters.deepspeed import Engine, learning_rate, start_engine
from pipelines.adapters.storage import Store
from pipelines.datasets.prepared import localize
from pipelines.params import Training
from pipelines.tasks import build_task
from pipelines.training import checkpoint
from pipelines.training.checkpoint import FINAL
from pipelines.training.loading import BatchPlan, BrokenImages, steps_in, training_batches, validation_batches
from tcformer.errors import UserError
from tcformer.models import load_initial, save_model
from tcformer.tasks.base import Batch, Dataset, Task

WEIGHTS, HISTORY, BROKEN = "model.safetensors", "history.json", "broken_images.json"
FAULT = "TCFORMER_FAULT"  # "kill:<rank>:<step>" (once in a training) or "slow:<rank>:<seconds a step>"


@dataclass
class _Loop:
    """What the loop carries from step to step in one worker."""

    task: Task
    engine: Engine
    training: Training
    plan: BatchPlan
    steps: int
    steps_per_epoch: float
    store: Store
    post: Callable[[dict[str, Any]], None]
    rank: int
    history: list[dict[str, float]] = field(default_factory=list)
    broken: BrokenImages = field(default_factory=BrokenImages)  # what all workers found up to the last row

    def record(self, done: int, values: dict[str, float], **passing: float) -> None:
        """Keep ``values`` in the history and report them; ``passing`` ones, such as the speed, are only reported."""
        self.history.append({"step": done, "epoch": done / self.steps_per_epoch, **values})
        self.post({"kind": "row", **self.history[-1], **passing})


def train(job: dict[str, Any]) -> None:
    """Train ``job`` in this worker, from its newest valid checkpoint if there is one.

    ``job`` holds: name, key, task, options, data (for ``localize``), training (a dict of the parameters), store (root
    of checkpoints and final weights), initial (key of the weights to start from, or None), loader_processes, post
    (sends an event to the driver).
    """
    with tempfile.TemporaryDirectory(prefix="tcformer-") as scratch:
        loop, data = _start(job, Path(scratch))
        task, engine, training, plan, steps = loop.task, loop.engine, loop.training, loop.plan, loop.steps
        first = _resume(loop, Path(scratch))
        loop.post(
            {
                "kind": "start",
                "step": first,
                "steps": steps,
                "samples": len(data),
                "device": engine.device.type,
                **asdict(plan),
            }
        )
        found = BrokenImages()
        batches = training_batches(data, plan, loop.rank, training.seed, first, steps, job["loader_processes"], found)
        meter = _Meter(engine.device)
        if not steps:
            loop.record(0, _validate(loop))
        for step in range(first, steps):
            _inject_fault(loop.store, loop.rank, step)
            _seed_everything(training.seed, step, loop.rank)
            engine.module.train()
            for _ in range(plan.accumulation):
                batch = _to(next(batches), engine.device)
                with _precision(training, engine.device):
                    losses = task.loss(engine, batch)
                engine.backward(losses["loss"])
                engine.step()
                meter.add(losses)
            done = step + 1
            saves = done % training.checkpoint_every == 0 and done < steps
            # A row before every checkpoint: a resumed training then writes the same rows.
            if done % training.log_every == 0 or done == steps or saves:
                row = meter.mean_over_workers()
                _stop_if_not_finite(row["loss"], done, loop.store)
                _tell_broken(loop, found, data)
                rate = learning_rate(step, training.optimizer, steps, loop.steps_per_epoch)
                speed, replaced = meter.rate(plan.global_batch, done), float(loop.broken.replaced)
                loop.record(done, {"lr": rate, **row}, images_per_second=speed, replaced_images=replaced)
            if _validates(done, steps, loop.steps_per_epoch, training):
                loop.record(done, _validate(loop))
                meter.restart(done)
            if saves:
                _save(loop, done)
                meter.restart(done)
        _finish(loop, job, Path(scratch))


def _start(job: dict[str, Any], scratch: Path) -> tuple[_Loop, Dataset]:
    """Build task, data and model, and wrap the model, the same on every rank."""
    training = Training.model_validate_json(json.dumps(job["training"]))
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    _be_deterministic(training.seed, device)
    rank, workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
    task = build_task(job["task"], job["options"], localize(job["data"]))
    data = task.train_set()
    plan = BatchPlan.divide(training.global_batch, training.micro_batch, workers)
    steps = steps_in(training.epochs, len(data), plan.global_batch)
    steps_per_epoch = len(data) / plan.global_batch
    store = Store(job["store"])
    model = task.build_model()
    post = job["post"] if rank == 0 else _ignore
    if job["initial"]:
        loaded = load_initial(model, store.fetch(job["initial"], scratch / job["initial"]))
        post({"kind": "note", "text": f"starts from the {loaded} of the given weights"})
    engine = start_engine(model.to(device), training, plan, steps, steps_per_epoch, device)
    return _Loop(task, engine, training, plan, steps, steps_per_epoch, store, post, rank), data


def _resume(loop: _Loop, cache: Path) -> int:
    """Load the newest valid checkpoint, the same on every rank; returns the first step to do."""
    found: list[checkpoint.Checkpoint | None] = [None]
    if loop.rank == 0:
        found = [checkpoint.newest(loop.store, cache, lambda text: loop.post({"kind": "note", "text": text}))]
    torch.distributed.broadcast_object_list(found, src=0)
    chosen = found[0]
    if chosen is None:
        return 0
    folder = chosen.folder if loop.rank == 0 else checkpoint.open_verified(loop.store, chosen.name, cache)
    loop.engine.load(folder)
    loop.history = json.loads((folder / HISTORY).read_text())
    loop.broken = BrokenImages(**json.loads((folder / BROKEN).read_text()))
    return chosen.step


def _save(loop: _Loop, step: int) -> None:
    """Take a checkpoint after ``step`` steps: every rank uploads its files, rank 0 declares it complete."""
    _agree_on_buffers(loop)
    name = checkpoint.folder_name(step)
    with tempfile.TemporaryDirectory(prefix="tcformer-") as scratch:
        loop.engine.save(Path(scratch))
        if loop.rank == 0:
            _write_records(loop, Path(scratch))
        digests = checkpoint.upload(loop.store, name, Path(scratch))
    everyone: list[dict[str, str]] = [{} for _ in range(loop.plan.workers)]
    torch.distributed.all_gather_object(everyone, digests)
    if loop.rank == 0:
        checkpoint.commit(loop.store, name, {key: value for part in everyone for key, value in part.items()})
        checkpoint.prune(loop.store)
        loop.post({"kind": "checkpoint", "step": step})
    torch.distributed.barrier()


def _write_records(loop: _Loop, folder: Path) -> None:
    (folder / HISTORY).write_text(json.dumps(loop.history))
    (folder / BROKEN).write_text(json.dumps(asdict(loop.broken), sort_keys=True))


def _finish(loop: _Loop, job: dict[str, Any], scratch: Path) -> None:
    """Rank 0 writes the final weights and the history as the store's last, complete entry."""
    _agree_on_buffers(loop)
    if loop.rank == 0:
        folder = scratch / FINAL
        folder.mkdir()
        described = {"options": json.dumps(job["options"], sort_keys=True), "training": job["key"]}
        save_model(loop.engine.module, folder / WEIGHTS, described)
        _write_records(loop, folder)
        checkpoint.commit(loop.store, FINAL, checkpoint.upload(loop.store, FINAL, folder))
        for name in loop.store.folders():
            if name != FINAL:
                loop.store.delete(name)
    torch.distributed.barrier()


def _validates(done: int, steps: int, steps_per_epoch: float, training: Training) -> bool:
    """Whether an epoch that asks for a validation ended with this step."""
    epochs_before, epochs = int((done - 1) / steps_per_epoch), int(done / steps_per_epoch)
    return done == steps or (epochs > epochs_before and epochs % training.validate_every == 0)


@torch.no_grad()
def _validate(loop: _Loop) -> dict[str, float]:
    """Means over the validation set, each sample counted once whatever the number of workers."""
    _agree_on_buffers(loop)
    loop.engine.module.eval()
    data = loop.task.val_set()
    # Every rank sums the same names, also one whose share is empty.
    sums: dict[str, Tensor] = {}
    for batch in validation_batches(data, loop.rank, loop.plan.workers, loop.training.micro_batch):
        with _precision(loop.training, loop.engine.device):
            found = loop.task.validate(loop.engine.module, _to(batch, loop.engine.device))
        for name, value in found.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.detach().double().cpu()
    everyone: list[dict[str, Tensor]] = [{} for _ in range(loop.plan.workers)]
    torch.distributed.all_gather_object(everyone, sums)
    total = {name: sum(float(part.get(name, 0.0)) for part in everyone) for name in everyone[0]}
    count = total.pop("count", 0.0)
    return {f"val_{name.removesuffix('_sum')}": value / max(count, 1.0) for name, value in total.items()}


@torch.no_grad()
def _agree_on_buffers(loop: _Loop) -> None:
    """Average what batch normalisation saw on each rank: a checkpoint keeps rank 0's alone."""
    for buffer in loop.engine.module.buffers():
        if buffer.is_floating_point() and loop.plan.workers > 1:
            torch.distributed.all_reduce(buffer)
            buffer /= loop.plan.workers


class _Meter:
    """Mean of the losses since the last row, over micro batches and workers, and the speed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.restart(None)

    def restart(self, step: int | None) -> None:
        """Start the clock again, so that a validation or checkpoint does not count as training time."""
        self._clock, self._step = time.perf_counter(), step

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value.detach().float()
        self._count += 1

    def mean_over_workers(self) -> dict[str, float]:
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] / self._count for name in names])
        torch.distributed.all_reduce(means)
        means /= torch.distributed.get_world_size()
        self._sums, self._count = {}, 0
        return dict(zip(names, means.tolist()))

    def rate(self, batch: int, step: int) -> float:
        """Images per second since the last call or restart; 0 for the first stretch, which includes warming up."""
        now = time.perf_counter()
        rate = 0.0 if self._step is None else (step - self._step) * batch / (now - self._clock)
        self._clock, self._step = now, step
        return rate


def _tell_broken(loop: _Loop, found: BrokenImages, data: Dataset) -> None:
    """Bring together which images each worker had to replace since the last row; too many end the training."""
    everyone = [found for _ in range(loop.plan.workers)]
    torch.distributed.all_gather_object(everyone, found)
    for reason in [reason for part in everyone for reason in loop.broken.add(part)]:
        loop.post({"kind": "note", "text": f"another sample stands in for a broken one: {reason}"})
    found.clear()
    if loop.broken.reasons:  # the number of files is counted anew each time; of classes' images it is that of samples
        loop.broken.check(getattr(data, "num_images", len(data)))


def _stop_if_not_finite(loss: float, step: int, store: Store) -> None:
    if not np.isfinite(loss):
        saved = [name for name in store.folders() if name.startswith("step-")]
        raise UserError(
            f"the loss is {loss} at step {step}: lower the learning rate or clip gradients (training.optimizer); the "
            f"last checkpoint is {saved[-1] if saved else 'none'}"
        )


def _precision(training: Training, device: torch.device) -> Any:
    bf16 = training.precision == "bf16" or (training.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def _to(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _be_deterministic(seed: int, device: torch.device) -> None:
    torch.manual_seed(seed)  # the same initial weights on every rank
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    else:
        # One thread a core that Ray gave this worker: more would fight with the other workers.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _seed_everything(seed: int, step: int, rank: int) -> None:
    """Random state as a function of (seed, step, rank): nothing to save, nothing to restore."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
    np.random.seed(int(words[1]) & 0xFFFFFFFF)
    random.seed(int(words[1]))


def _inject_fault(store: Store, rank: int, step: int) -> None:
    """Do what the environment's fault plan says; for tests of what a training survives."""
    kind, chosen, amount = os.environ.get(FAULT, "none:-1:0").split(":")
    if rank != int(chosen):
        return
    if kind == "slow":
        time.sleep(float(amount))
    elif kind == "kill" and step == int(amount) and store.read("fault-injected") is None:
        store.write("fault-injected", b"")
        os.kill(os.getpid(), signal.SIGKILL)


def _ignore(event: dict[str, Any]) -> None:
    """Only rank 0 reports."""

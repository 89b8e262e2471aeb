"""The training loop: one for all tasks. It runs in every worker."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from pipelines.adapters.storage import Store
from pipelines.datasets.location import fetch_dataset
from pipelines.layout import WEIGHTS
from pipelines.params import spec_to_json
from pipelines.training import checkpoint
from pipelines.training.checkpoint import FINAL
from pipelines.training.device import (
    autocast,
    be_deterministic,
    compute_dtype,
    observed_dtypes,
    seed_step,
    this_device,
    to_device,
)
from pipelines.training.ema import WeightAverage
from pipelines.training.engine import Engine, EngineOptions, StartEngine
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started, Stopped
from pipelines.training.faults import inject_fault
from pipelines.training.instruction_sets import check_instruction_sets
from pipelines.training.job import Job
from pipelines.training.link import Link
from pipelines.training.loading import BrokenImages, training_batches, validation_batches
from pipelines.training.meter import LossMeter
from pipelines.training.sampling import BatchPlan, steps_in
from tcformer.errors import UserError
from tcformer.models import Network, load_initial, save_model
from tcformer.tasks import Dataset, Task, ValidationMeasure

HISTORY, BROKEN, METER, BEST = "history.json", "broken_images.json", "meter.json", "best.safetensors"


@dataclass
class Worker:
    """What one worker carries from step to step."""

    job: Job
    task: Task
    data: Dataset
    engine: Engine
    average: WeightAverage | None
    options: EngineOptions
    store: Store
    scratch: Path  # folder on this machine; rank 0 keeps the weights of the best validation there
    link: Link
    rank: int
    meter: LossMeter
    history: list[dict[str, float]] = field(default_factory=list)
    broken: BrokenImages = field(default_factory=BrokenImages)  # found by all workers up to the last row

    def send(self, event: Event) -> None:
        """Hand an event to the driver: rank 0 reports for all."""
        if self.rank == 0:
            self.link.send(event)

    @property
    def network(self) -> Network:
        """The network that is validated and handed out: with the averaged weights if the training averages them."""
        return self.average.module if self.average else self.engine.module

    @cached_property
    def val_set(self) -> Dataset:
        """The validation set, read once."""
        return self.task.val_set()

    def log(self, step: int, values: dict[str, float], momentary: dict[str, float] | None = None) -> None:
        """Keep `values` in the history and send them to the driver; `momentary` ones are only sent."""
        epoch = step / self.options.steps_per_epoch
        self.history.append({"step": step, "epoch": epoch, **values})
        self.send(Row(step, epoch, values, momentary or {}))


def train(job: Job, start_engine: StartEngine, link: Link) -> None:
    """Train `job` in this worker, from its newest valid checkpoint if there is one, to its end or until it is stopped.

    Args:
        job: what to train, see `Job`.
        start_engine: wraps the model; torch.distributed is initialised already.
        link: to the driver.

    Raises:
        UserError: data or parameters that do not fit, a loss that is not finite.
    """
    with tempfile.TemporaryDirectory(prefix="tcformer-") as folder:
        scratch = Path(folder)
        worker = _start(job, start_engine, link, scratch)
        first = _resume(worker)
        if _train_steps(worker, first):
            _finish(worker)


def _train_steps(worker: Worker, first: int) -> bool:
    """Do the steps from `first` on; False if the driver stopped them, after a checkpoint."""
    task, engine, options, training = worker.task, worker.engine, worker.options, worker.job.training
    steps, batch = options.steps, options.batch
    shape = (batch.workers, batch.accumulation, batch.micro_batch)
    worker.send(Started(first, steps, len(worker.data), options.device.type, *shape))
    found = BrokenImages()
    processes = worker.job.loader_processes
    positions = (worker.rank, training.seed, first, steps)
    batches = training_batches(worker.data, batch, *positions, processes, found, lambda text: worker.send(Note(text)))
    meter = worker.meter
    if not steps:
        _validate(worker, 0)
    for step in range(first, steps):
        worker.link.at(f"waiting for the samples of step {step + 1}")
        if worker.link.stops_before(step):
            if step > first:
                _share_broken_images(worker, found)
                _save(worker, step)
            worker.send(Stopped(step))
            return False
        inject_fault(worker.store, worker.rank, step)
        seed_step(training.seed, step, worker.rank)
        engine.module.train()
        engine.module.set_progress(step / steps)
        rate = engine.learning_rate
        for part in range(batch.accumulation):
            samples = to_device(next(batches), options.device)
            worker.link.at(f"step {step + 1}")
            with autocast(training, options.device), _precision_reported(worker, is_first=step == first and part == 0):
                losses = task.loss(engine, samples)
            engine.backward(losses["loss"])
            engine.step()
            meter.add(losses)
        if worker.average:
            worker.average.update(engine.module, step)
        done = step + 1
        saves = done % training.checkpoint_every == 0 and done < steps
        # A row before every checkpoint: a resumed training then writes the same rows.
        if done % training.log_every == 0 or done == steps or saves:
            means = meter.mean_over_workers()
            _require_finite("the loss", means["loss"], done, worker.store)
            _share_broken_images(worker, found)
            speed = meter.images_per_second(batch.global_batch, done)
            momentary = {"images_per_second": speed, "replaced_images": worker.broken.replaced}
            worker.log(done, {"lr": rate, **means}, momentary)
        if _validates(done, options, training.validate_every):
            _validate(worker, done)
            meter.restart_clock(done)
        if saves:
            _save(worker, done)
            meter.restart_clock(done)
    return True


def _start(job: Job, start_engine: StartEngine, link: Link, scratch: Path) -> Worker:
    """Build task, data and model, and wrap the model, the same on every worker."""
    training, device = job.training, this_device()
    check_instruction_sets(job.instruction_sets)
    be_deterministic(training.seed, device)
    rank, workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
    task = job.task.build(fetch_dataset(job.data))
    data = task.train_set()
    group = getattr(data, "samples_per_group", 1)
    batch = BatchPlan.divide(training.global_batch, training.micro_batch, workers, group)
    steps = steps_in(training.epochs, len(data), batch.global_batch)
    options = EngineOptions(training, batch, steps, len(data) / batch.global_batch, device)
    store = Store(job.store)
    model = task.build_model()
    if job.initial:
        say: Callable[[str], None] = (lambda text: link.send(Note(text))) if rank == 0 else (lambda text: None)
        loaded = load_initial(model, store.fetch(job.initial, scratch / job.initial), say=say)
        say(f"starts from the {loaded} of the given weights")
    model = model.to(device)
    average = WeightAverage(model, training.ema_decay) if training.ema_decay is not None else None
    engine = start_engine(model, options)
    return Worker(job, task, data, engine, average, options, store, scratch, link, rank, LossMeter(device))


def _resume(worker: Worker) -> int:
    """Load the newest valid checkpoint, the same on every worker; returns the first step to do."""
    found: list[checkpoint.Checkpoint | None] = [None]
    cache = worker.scratch
    if worker.rank == 0:
        found = [checkpoint.newest(worker.store, cache, lambda text: worker.send(Note(text)))]
    torch.distributed.broadcast_object_list(found, src=0)
    chosen = found[0]
    if chosen is None:
        return 0
    folder = chosen.folder if worker.rank == 0 else checkpoint.open_verified(worker.store, chosen.name, cache)
    worker.engine.load(folder)
    if worker.average:
        worker.average.load(folder)
    if worker.rank == 0 and (folder / BEST).is_file():
        shutil.copyfile(folder / BEST, worker.scratch / BEST)
    worker.history = json.loads((folder / HISTORY).read_text())
    worker.broken = BrokenImages(**json.loads((folder / BROKEN).read_text()))
    worker.meter.load(json.loads((folder / METER).read_text()), worker.rank)
    return chosen.step


def _save(worker: Worker, step: int) -> None:
    """Take a checkpoint after `step` steps: every worker uploads its files, rank 0 declares it complete."""
    worker.link.at(f"saving the checkpoint of step {step}")
    _average_buffers(worker)
    meters: list[dict[str, float]] = [{} for _ in range(worker.options.batch.workers)]
    torch.distributed.all_gather_object(meters, worker.meter.state())
    name = checkpoint.folder_name(step)
    with tempfile.TemporaryDirectory(prefix="tcformer-") as scratch:
        worker.engine.save(Path(scratch))
        if worker.rank == 0:
            _write_history(worker, Path(scratch))
            (Path(scratch) / METER).write_text(json.dumps(meters))
            if worker.average:
                worker.average.save(Path(scratch))
            if (worker.scratch / BEST).is_file():
                shutil.copyfile(worker.scratch / BEST, Path(scratch) / BEST)
        digests = checkpoint.upload(worker.store, name, Path(scratch))
    everyone: list[dict[str, str]] = [{} for _ in range(worker.options.batch.workers)]
    torch.distributed.all_gather_object(everyone, digests)
    if worker.rank == 0:
        checkpoint.commit(worker.store, name, {key: value for part in everyone for key, value in part.items()})
        checkpoint.prune(worker.store)
        worker.send(CheckpointSaved(step))
    torch.distributed.barrier()


def _write_history(worker: Worker, folder: Path) -> None:
    (folder / HISTORY).write_text(json.dumps(worker.history))
    (folder / BROKEN).write_text(json.dumps(asdict(worker.broken), sort_keys=True))


def best_validation(history: list[dict[str, float]], measure: ValidationMeasure) -> dict[str, float]:
    """The row of the best validation in a history; of equal ones the earliest."""
    name = f"val_{measure.name}"
    choose = max if measure.higher_is_better else min
    return choose((row for row in history if name in row), key=lambda row: row[name])


def _best(worker: Worker) -> dict[str, float]:
    return best_validation(worker.history, worker.task.validation_measure)


def _save_weights(worker: Worker, path: Path, step: int) -> None:
    metadata = {"options": spec_to_json(worker.job.task), "training": worker.job.key, "step": str(step)}
    save_model(worker.network, path, metadata)


def _finish(worker: Worker) -> None:
    """Rank 0 writes the final weights and the history as the store's last, complete entry."""
    _average_buffers(worker)
    if worker.rank == 0:
        folder = worker.scratch / FINAL
        folder.mkdir()
        if worker.job.training.keep == "best":
            best, name = _best(worker), f"val_{worker.task.validation_measure.name}"
            worker.send(Note(f"keeps the weights of step {best['step']}: the best {name}, {best[name]:.4g}"))
            shutil.copyfile(worker.scratch / BEST, folder / WEIGHTS)
        else:
            _save_weights(worker, folder / WEIGHTS, worker.options.steps)
        _write_history(worker, folder)
        checkpoint.commit(worker.store, FINAL, checkpoint.upload(worker.store, FINAL, folder))
        for name in worker.store.folders():
            if name != FINAL:
                worker.store.delete(name)
    torch.distributed.barrier()


def _validates(done: int, options: EngineOptions, every: int) -> bool:
    """Whether an epoch that asks for a validation ended with this step."""
    epochs_before, epochs = int((done - 1) / options.steps_per_epoch), int(done / options.steps_per_epoch)
    return done == options.steps or (epochs > epochs_before and epochs % every == 0)


def _validate(worker: Worker, step: int) -> None:
    """Log the measures of the network after `step` steps; rank 0 keeps its weights if they are the best ones so far."""
    worker.log(step, _validation_means(worker, step))
    if worker.rank == 0 and worker.job.training.keep == "best" and _best(worker)["step"] == step:
        _save_weights(worker, worker.scratch / BEST, step)


@torch.no_grad()
def _validation_means(worker: Worker, step: int) -> dict[str, float]:
    """Means over the validation set, each sample counted once whatever the number of workers.

    Raises:
        UserError: a mean is not finite.
    """
    _average_buffers(worker)
    worker.link.at(f"waiting for the validation's samples after step {step}")
    network = worker.network.eval()
    training, options, workers = worker.job.training, worker.options, worker.options.batch.workers
    shard = (worker.val_set, worker.rank, workers, training.micro_batch, worker.job.loader_processes)
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(validation_batches(*shard)):
        worker.link.at(f"validation after step {step}, batch {number + 1}")
        with autocast(training, options.device):
            found = worker.task.validate(network, to_device(batch, options.device))
        for name, value in found.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.detach().double().cpu()
    # Rank 0 always has a sample, and so the names of all sums; a worker whose shard is empty has none.
    everyone: list[dict[str, Tensor]] = [{} for _ in range(workers)]
    torch.distributed.all_gather_object(everyone, sums)
    total = {name: sum(float(part.get(name, 0.0)) for part in everyone) for name in everyone[0]}
    count = total.pop("count", 0.0)
    means = {f"val_{name.removesuffix('_sum')}": value / max(count, 1.0) for name, value in total.items()}
    for name, mean in means.items():
        _require_finite(name, mean, step, worker.store)
    return means


@torch.no_grad()
def _average_buffers(worker: Worker) -> None:
    """Average what batch normalisation saw on each worker: a checkpoint keeps rank 0's alone."""
    workers = worker.options.batch.workers
    networks = [worker.engine.module, *([worker.average.module] if worker.average else [])]
    for buffer in [buffer for network in networks for buffer in network.buffers()]:
        if buffer.is_floating_point() and workers > 1:
            torch.distributed.all_reduce(buffer)
            buffer /= workers


@contextmanager
def _precision_reported(worker: Worker, is_first: bool) -> Iterator[None]:
    """Tell the driver in which precision the first forward pass really computes."""
    if not is_first:
        yield
        return
    with observed_dtypes(worker.engine.module) as seen:
        yield
    wanted = compute_dtype(worker.job.training, worker.options.device)
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in seen))
    warning = "" if seen == {wanted} else f"; warning: expected {str(wanted).removeprefix('torch.')}"
    worker.send(Note(f"linear and convolution layers compute in {names}{warning}"))


def _share_broken_images(worker: Worker, found: BrokenImages) -> None:
    """Bring together which images each worker had to replace since the last row; too many end the training."""
    everyone = [found for _ in range(worker.options.batch.workers)]
    torch.distributed.all_gather_object(everyone, found)
    for reason in [reason for part in everyone for reason in worker.broken.add(part)]:
        worker.send(Note(f"a broken image is replaced by another sample: {reason}"))
    found.clear()
    if worker.broken.reasons:  # the number of files is counted anew each time; of classes' images it is that of samples
        worker.broken.check(getattr(worker.data, "num_images", len(worker.data)))


def _require_finite(name: str, value: float, step: int, store: Store) -> None:
    if not np.isfinite(value):
        saved = [name for name in store.folders() if name.startswith("step-")]
        raise UserError(
            f"{name} is {value} at step {step}: lower the learning rate or clip gradients (training.optimizer); the "
            f"last checkpoint is {saved[-1] if saved else 'none'}"
        )

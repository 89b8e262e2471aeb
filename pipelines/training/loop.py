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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipelines.adapters.storage import Store
from pipelines.datasets.location import fetch_dataset
from pipelines.layout import LAST_WEIGHTS, WEIGHTS
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
from pipelines.training.ema import FILE as AVERAGE
from pipelines.training.ema import WeightAverage
from pipelines.training.engine import Engine, EngineOptions, StartEngine
from pipelines.training.events import CheckpointSaved, Event, Note, Row, Started, Stopped
from pipelines.training.faults import inject_fault
from pipelines.training.instruction_sets import check_instruction_sets
from pipelines.training.job import Job
from pipelines.training.link import Link
from pipelines.training.loading import BrokenImages, training_batches, validation_batches
from pipelines.training.meter import LossMeter
from pipelines.training.sampling import BatchPlan, SampleOrder, steps_in
from pipelines.training.state import MOMENTS, POSITION, OptimizerState, first_not_finite
from pipelines.training.writer import CheckpointWriter, Snapshot
from tcformer.errors import UserError, listed
from tcformer.memory import keep_freed_memory
from tcformer.models import Network, load_initial, save_model
from tcformer.models.weights import file_metadata
from tcformer.tasks import Dataset, Task, ValidationMeasure

HISTORY, BROKEN, SKIPPED, METER = "history.json", "broken_images.json", "skipped_steps.json", "meter.json"
NETWORK, BEST = "network.safetensors", "best.safetensors"
MOST_SKIPPED = 10  # steps in a row, after which a training ends
MOST_NOTES = 10  # about skipped steps


@dataclass
class SkippedSteps:
    """Steps that changed nothing, because the loss or the gradients of a worker were not finite."""

    total: int = 0
    in_a_row: int = 0  # up to the last step


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
    writer: CheckpointWriter  # of rank 0; those of the other workers have nothing to do
    history: list[dict[str, float]] = field(default_factory=list)
    broken: BrokenImages = field(default_factory=BrokenImages)  # found by all workers up to the last row
    skipped: SkippedSteps = field(default_factory=SkippedSteps)

    def send(self, event: Event) -> None:
        """Hand an event to the driver: rank 0 reports for all."""
        if self.rank == 0:
            self.link.send(event)

    @property
    def network(self) -> Network:
        """The network that is validated and handed out: with the averaged weights if the training averages them."""
        return self.average.module if self.average else self.engine.whole

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
        UserError: data or parameters that do not fit, `MOST_SKIPPED` steps in a row or a validation that are not
            finite, a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="tcformer-") as folder:
        scratch = Path(folder)
        worker = _start(job, start_engine, link, scratch)
        with worker.writer:
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
    meter, statistics = worker.meter, _running_statistics(engine.module)
    if not steps:
        _validate(worker, 0)
    for step in range(first, steps):
        worker.link.at(f"waiting for the samples of step {step + 1}")
        if worker.link.stops_before(step):
            if step > first:
                _share_broken_images(worker, found)
                _save(worker, step)
            _wait_for_checkpoint(worker)
            worker.send(Stopped(step))
            return False
        worker.writer.poll()
        inject_fault(worker.store, worker.rank, step)
        seed_step(training.seed, step, worker.rank)
        engine.module.train()
        for network in {engine.module, worker.network}:
            network.set_progress(step / steps)
        rate = engine.learning_rate
        before = [value.clone() for value in statistics]
        step_losses: list[dict[str, Tensor]] = []
        is_applied = True
        for part in range(batch.accumulation):
            samples = to_device(next(batches), options.device)
            worker.link.at(f"step {step + 1}")
            with autocast(training, options.device), _precision_reported(worker, is_first=step == first and part == 0):
                losses = task.loss(engine, samples)
            engine.backward(losses["loss"])
            is_applied = engine.step()
            step_losses.append({name: value.detach() for name, value in losses.items()})
        done = step + 1
        if is_applied:
            worker.skipped.in_a_row = 0
            for losses in step_losses:
                meter.add(losses)
            if worker.average:
                engine.gather()
                worker.average.update(engine.whole, step)
        else:
            for value, old in zip(statistics, before, strict=True):
                value.copy_(old)
            _count_skipped_step(worker, step, [losses["loss"] for losses in step_losses])
        saves = done % training.checkpoint_every == 0 and done < steps
        # A row before every checkpoint: a resumed training then writes the same rows.
        if (done % training.log_every == 0 or done == steps or saves) and not meter.is_empty:
            means = meter.mean_over_workers()
            _require_finite("the loss", means["loss"], done, worker)
            _share_broken_images(worker, found)
            speed = meter.images_per_second(batch.global_batch, done)
            counts = {"replaced_images": worker.broken.replaced, "skipped_steps": worker.skipped.total}
            worker.log(done, {"lr": rate, **means}, {"images_per_second": speed, **counts})
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
    keep_freed_memory()
    rank, workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
    task = job.task.build(fetch_dataset(job.data, link.at))
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
    meter = LossMeter(device)
    writer = CheckpointWriter(Store(job.store, patient=False), link.send)  # it repeats writes itself, with a note
    return Worker(job, task, data, engine, average, options, store, scratch, link, rank, meter, writer)


def _resume(worker: Worker) -> int:
    """Load the newest valid checkpoint, the same on every worker; returns the first step to do."""
    found: list[checkpoint.Checkpoint | None] = [None]
    cache = worker.scratch
    if worker.rank == 0:
        files = (NETWORK, MOMENTS, POSITION, HISTORY, BROKEN, SKIPPED, METER, *([AVERAGE] if worker.average else []))
        found = [checkpoint.newest(worker.store, cache, lambda text: worker.send(Note(text)), files)]
    torch.distributed.broadcast_object_list(found, src=0)
    chosen = found[0]
    if chosen is None:
        return 0
    folder = chosen.folder if worker.rank == 0 else checkpoint.open_verified(worker.store, chosen.name, cache)
    try:
        worker.engine.load(load_file(folder / NETWORK), OptimizerState.load(folder))
        if worker.average:
            worker.average.load(folder)
        worker.history = json.loads((folder / HISTORY).read_text())
        worker.broken = BrokenImages(**json.loads((folder / BROKEN).read_text()))
        worker.skipped = SkippedSteps(**json.loads((folder / SKIPPED).read_text()))
        meter = json.loads((folder / METER).read_text())
        worker.meter.load(meter["workers"], worker.rank, worker.options.batch.accumulation / meter["accumulation"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{worker.store.root}/{chosen.name}: the checkpoint is not one of this training ({str(error)[:200]}): "
            "start anew with --fresh"
        ) from error
    if worker.rank == 0 and (folder / BEST).is_file():
        shutil.copyfile(folder / BEST, worker.scratch / BEST)
    before, now = len(meter["workers"]), worker.options.batch.workers
    if before != now:
        worker.send(
            Note(
                f"resumed with another number of workers, {now} after {before}: each step has the same samples as "
                "before, but random numbers of the network and rounding differ, so the result is not bit-identical"
            )
        )
    return chosen.step


def _save(worker: Worker, step: int) -> None:
    """Take a checkpoint after `step` steps: rank 0 copies the state of all workers and writes it while they go on.

    The files do not depend on the number of workers.
    """
    worker.link.at(f"saving the checkpoint of step {step}")
    _bring_together(worker)
    meters: list[dict[str, float]] = [{} for _ in range(worker.options.batch.workers)]
    torch.distributed.all_gather_object(meters, worker.meter.state())
    optimizer = worker.engine.optimizer_state()

    def begin() -> None:
        _require_finite_state(worker, optimizer, step)
        worker.link.at(f"copying the checkpoint of step {step}, once the one before is written")
        snapshot = Snapshot(others=_history_files(worker))
        module = worker.engine.whole
        snapshot.add(NETWORK, module.state_dict(), file_metadata(module))
        snapshot.add(MOMENTS, optimizer.moments)
        snapshot.others[POSITION] = optimizer.position
        meter = {"accumulation": worker.options.batch.accumulation, "workers": meters}
        snapshot.others[METER] = json.dumps(meter).encode()
        if worker.average:
            snapshot.add(AVERAGE, worker.average.module.state_dict(), file_metadata(worker.average.module))
        if (worker.scratch / BEST).is_file():
            snapshot.others[BEST] = (worker.scratch / BEST).read_bytes()
        worker.writer.start(checkpoint.folder_name(step), snapshot, CheckpointSaved(step))

    _on_rank_0(worker, begin)


def _wait_for_checkpoint(worker: Worker) -> None:
    """Wait on every worker until rank 0 has written the last checkpoint."""
    worker.link.at("waiting until the last checkpoint is written")
    _on_rank_0(worker, worker.writer.wait)


def _on_rank_0(worker: Worker, action: Callable[[], None]) -> None:
    """Do `action` on rank 0, for which the others wait; a UserError that it raises is raised on every worker."""
    problem: list[str | None] = [None]
    if worker.rank == 0:
        try:
            action()
        except UserError as error:
            problem = [str(error)]
    torch.distributed.broadcast_object_list(problem, src=0)
    if problem[0] is not None:
        raise UserError(problem[0])


def _require_finite_state(worker: Worker, optimizer: OptimizerState, step: int) -> None:
    """Raise UserError if a value of a checkpoint is not finite: a training that resumed from it would be lost."""
    average = worker.average.module.state_dict() if worker.average else {}
    for what, tensors in (
        ("weights", worker.engine.whole.state_dict()),
        ("averaged weights", average),
        ("moments of the optimiser", optimizer.moments),
    ):
        name = first_not_finite(tensors)
        if name is not None:
            raise UserError(
                f"the {what} contain NaN or infinity after step {step} ({name}), so no checkpoint is written: lower "
                f"the learning rate or clip gradients (training.optimizer); {_last_checkpoint(worker)}"
            )


def _history_files(worker: Worker) -> dict[str, bytes]:
    """What is kept of the steps so far, as files of a checkpoint."""
    return {
        HISTORY: json.dumps(worker.history).encode(),
        BROKEN: json.dumps(asdict(worker.broken), sort_keys=True).encode(),
        SKIPPED: json.dumps(asdict(worker.skipped)).encode(),
    }


def best_validation(history: list[dict[str, float]], measure: ValidationMeasure) -> dict[str, float]:
    """The row of the best validation in a history; of equal ones the earliest."""
    name = f"val_{measure.name}"
    choose = max if measure.higher_is_better else min
    return choose((row for row in history if name in row), key=lambda row: row[name])


def _best(worker: Worker) -> dict[str, float]:
    return best_validation(worker.history, worker.task.validation_measure)


def _metadata(worker: Worker, step: int) -> dict[str, str]:
    """What a weights file says of its training."""
    return {"options": spec_to_json(worker.job.task), "training": worker.job.key, "step": str(step)}


def _finish(worker: Worker) -> None:
    """Rank 0 writes the final weights and the history as the store's last, complete entry."""
    _bring_together(worker)
    _on_rank_0(worker, lambda: _write_final(worker))
    _wait_for_checkpoint(worker)


def _write_final(worker: Worker) -> None:
    snapshot = Snapshot(others=_history_files(worker))
    last = WEIGHTS
    if worker.job.training.keep == "best":
        last = LAST_WEIGHTS
        best, name = _best(worker), f"val_{worker.task.validation_measure.name}"
        worker.send(Note(f"keeps the weights of step {best['step']}: the best {name}, {best[name]:.4g}"))
        snapshot.others[WEIGHTS] = (worker.scratch / BEST).read_bytes()
    metadata = file_metadata(worker.network, _metadata(worker, worker.options.steps))
    snapshot.add(last, worker.network.state_dict(), metadata)
    worker.writer.start(FINAL, snapshot)


def _validates(done: int, options: EngineOptions, every: int) -> bool:
    """Whether an epoch that asks for a validation ended with this step."""
    epochs_before, epochs = int((done - 1) / options.steps_per_epoch), int(done / options.steps_per_epoch)
    return done == options.steps or (epochs > epochs_before and epochs % every == 0)


def _validate(worker: Worker, step: int) -> None:
    """Log the measures of the network after `step` steps; rank 0 keeps its weights if they are the best ones so far."""
    worker.log(step, _validation_means(worker, step))
    if worker.rank == 0 and worker.job.training.keep == "best" and _best(worker)["step"] == step:
        save_model(worker.network, worker.scratch / BEST, _metadata(worker, step))


@torch.no_grad()
def _validation_means(worker: Worker, step: int) -> dict[str, float]:
    """Means over the validation set, each sample counted once whatever the number of workers.

    Raises:
        UserError: a mean is not finite.
    """
    _bring_together(worker)
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
        _require_finite(name, mean, step, worker)
    return means


@torch.no_grad()
def _bring_together(worker: Worker) -> None:
    """Average what batch normalisation saw on each worker, and gather weights that the workers divide.

    A checkpoint keeps what rank 0 has.
    """
    workers = worker.options.batch.workers
    networks = [worker.engine.module, *([worker.average.module] if worker.average else [])]
    for buffer in [buffer for network in networks for buffer in network.buffers()]:
        if buffer.is_floating_point() and workers > 1:
            torch.distributed.all_reduce(buffer)
            buffer /= workers
    worker.engine.gather()


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


def _require_finite(name: str, value: float, step: int, worker: Worker) -> None:
    if not np.isfinite(value):
        raise UserError(
            f"{name} is {value} at step {step}: lower the learning rate or clip gradients (training.optimizer); "
            f"{_last_checkpoint(worker)}"
        )


def _last_checkpoint(worker: Worker) -> str:
    """Which checkpoint a training that ends now can resume from."""
    worker.writer.settle()
    try:
        return f"the last checkpoint is {checkpoint.last_complete(worker.store)}"
    except (UserError, OSError):  # the store is away; that must not hide the reason of the end
        return "the last checkpoint is unknown, because the store cannot be read"


def _running_statistics(network: Network) -> list[Tensor]:
    """What a forward pass in training mode changes: the statistics of batch normalisation."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._NormBase)]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def _count_skipped_step(worker: Worker, step: int, losses: list[Tensor]) -> None:
    """Count a step, numbered from 0, that changed nothing; too many in a row end the training on every worker.

    Args:
        worker: all of them call it, for the same step.
        step: its number.
        losses: of this worker's micro batches.
    """
    skipped, batch = worker.skipped, worker.options.batch
    skipped.total += 1
    skipped.in_a_row += 1
    if skipped.total > MOST_NOTES and skipped.in_a_row < MOST_SKIPPED:
        return
    parts = zip(batch.positions(step, worker.rank), losses, strict=True)
    own = [position for positions, loss in parts if not bool(loss.isfinite()) for position in positions]
    everyone: list[list[int]] = [[] for _ in range(batch.workers)]
    torch.distributed.all_gather_object(everyone, own)
    found = [position for part in everyone for position in part]
    what = "loss is" if found else "gradients are"
    first = step * batch.global_batch
    order = SampleOrder(len(worker.data), worker.job.training.seed)
    names = listed(str(order[place][1]) for place in sorted(found or range(first, first + batch.global_batch)))
    reason = f"step {step + 1}: the {what} not finite for the training set's samples {names}"
    if skipped.in_a_row < MOST_SKIPPED:
        worker.send(Note(f"{reason}; the step is skipped"))
        return
    raise UserError(
        f"{reason}, and {MOST_SKIPPED - 1} steps before it were skipped: lower the learning rate or clip gradients "
        f"(training.optimizer), or check these samples; {_last_checkpoint(worker)}"
    )

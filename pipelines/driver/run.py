"""A training as the driver sees it: name it by what determines it, launch it, record it, collect its results."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.adapters.deepspeed import start_deepspeed
from pipelines.adapters.mlflow import Run
from pipelines.adapters.ray import run_training, session
from pipelines.adapters.storage import Store, below
from pipelines.driver.lease import only_one, only_one_in_storage
from pipelines.driver.local import train_locally
from pipelines.driver.plan import TrainingPlan, checkpoints_root, plan_of
from pipelines.driver.preflight import bytes_needed, require_writable
from pipelines.driver.progress import TrainingProgress
from pipelines.driver.run_name import run_name
from pipelines.driver.stored import unfinished_with_other_inputs, write_inputs
from pipelines.evaluation.headlines import write_headline
from pipelines.layout import LAST_WEIGHTS, WEIGHTS, Layout
from pipelines.params import Params, spec_to_json
from pipelines.provenance import cpu, git_revision, versions
from pipelines.running.execution import current_execution, experiment_name
from pipelines.running.process import Interrupted, noted_interrupts, runs_locally
from pipelines.trained import dataset_used
from pipelines.training import checkpoint
from pipelines.training.events import Event, Note, Row
from pipelines.training.instruction_sets import effective_settings, environment_for
from pipelines.training.job import Job
from pipelines.training.link import Link
from pipelines.training.loop import train
from pipelines.training.outputs import write_outputs
from pipelines.training.sampling import BatchPlan, usable_workers
from tcformer.files import sha256_of_json
from tcformer.tasks import ALL_TASKS


def train_task(task: str, params: Params, fresh: bool = False) -> None:
    """Train a task as params.yaml says, into the folders of its recipe: what the stages `pretrain` and `finetune` do.

    The headline of a training is the measure of its final weights on the validation set.

    Raises:
        UserError: see `plan_of` and `run`.
    """
    out = Layout(params.recipe).training(task)
    plan = plan_of(task, params)
    run(plan, params, out, fresh)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    measure = ALL_TASKS[task].part("task").TASK.validation_measure.name
    write_headline(Layout(params.recipe).headline(plan.file_name), {"validation": metrics[f"val_{measure}"]})


def run(plan: TrainingPlan, params: Params, out: Path, fresh: bool = False) -> None:
    """Train `plan`, or resume it, or take the finished result; write weights and curves to `out`.

    Args:
        plan: what to train.
        params: where to run and what to record.
        out: folder of the stage's outputs.
        fresh: remove its checkpoints first and start anew.

    Raises:
        UserError: another process trains the same plan or writes to `out`, a folder cannot be written or its disk is
            full, parameters that do not fit the machine, lost workers, steps that are not finite.
    """
    layout = Layout(params.recipe)
    root = Store(checkpoints_root(params))
    store = Store(below(root.root, plan.key))
    cache = Layout("remote").checkpoints / plan.key  # copies of a remote store's files
    require_writable(out, f"the outputs of {plan.stage}")
    require_writable(layout.checkpoints, "checkpoints")
    with _only_one(plan, layout, out, params.cluster.storage):
        if fresh:
            for name in store.folders():
                store.delete(name)
        elif store.read(f"{checkpoint.FINAL}/{checkpoint.MANIFEST}") is not None:
            print(f"{plan.stage}: already trained with these parameters, data and code: taking that result")
        elif store.folders():
            print(f"{plan.stage}: resuming from the checkpoints in {store.shown}")
        else:
            other = unfinished_with_other_inputs(root, plan.key, params.recipe, plan.inputs)
            if other:
                print(f"{plan.stage}: {other}")
        begins = fresh or not store.folders()
        machine = {"cpu": cpu(), "instruction_sets": effective_settings(plan.instruction_sets)}
        with _recorded(plan, params, layout, begins, machine) as tracked:
            if checkpoint.fault(store, checkpoint.FINAL, cache) is not None:
                write_inputs(store, params.recipe, plan.inputs)
                _launch(plan, params, store, tracked)
            finished = checkpoint.open_verified(store, checkpoint.FINAL, cache)
            options = json.loads(spec_to_json(plan.task))
            provenance = {"training": plan.key, "data": plan.data.sha256, "options": options, **machine}
            write_outputs(finished, out, provenance)
            task, registered = plan.task.name, params.tracking.registered_model
            for path in sorted(out.iterdir()):
                if path.name == WEIGHTS:
                    tracked.model(path, task, registered and f"{registered}-{task}")
                elif path.name != LAST_WEIGHTS:
                    tracked.artifact(path)


@contextmanager
def _only_one(plan: TrainingPlan, layout: Layout, out: Path, storage: str | None) -> Iterator[None]:
    """Hold a training, here and in the shared storage, and the folder of its outputs for this process.

    Raises:
        UserError: another process holds one of them; the message names it.
    """
    place = sha256_of_json(str(out.resolve()))[:16]
    with (
        only_one(layout.checkpoints / f"{plan.key}.lock", "this training"),
        only_one(layout.checkpoints / f"outputs-{place}.lock", f"a training that writes to {out}"),
        only_one_in_storage(storage, plan.key),
    ):
        yield


@contextmanager
def _recorded(
    plan: TrainingPlan, params: Params, layout: Layout, begins: bool, machine: dict[str, dict[str, str]]
) -> Iterator[Run]:
    """The training's run in MLflow; it ends with the status that the body leaves with.

    Args:
        begins: whether the training starts anew rather than from a checkpoint.
        machine: properties of the CPU in groups; each becomes a tag.
    """
    experiment = experiment_name()
    tracked = Run(
        plan.key,
        run_name(plan.task.name, params, experiment),
        params.tracking.experiment,
        layout.journals,
        {"options": json.loads(spec_to_json(plan.task)), "training": plan.training.model_dump(mode="json")},
        {
            "dvc.stage": plan.stage,
            "recipe": params.recipe,
            "git.revision": git_revision(),
            "data.sha256": plan.data.sha256,
            **({"dvc.experiment": experiment} if experiment else {}),
            **{f"version.{name}": version for name, version in versions().items()},
            **{f"cpu.{name}": value for group in machine.values() for name, value in group.items()},
        },
        mode="begin" if begins else "continue",
        datasets=[dataset_used(plan.data, f"{params.recipe}/{plan.task.name}", "training")],
        execution=current_execution(),
        watches_machine=params.tracking.system_metrics,
    )
    status = "FAILED"
    try:
        yield tracked
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        tracked.close(status)


def _launch(plan: TrainingPlan, params: Params, store: Store, tracked: Run) -> None:
    """Run the training loop, on Ray's workers or in this process."""
    cluster = params.cluster
    task = plan.task.build(plan.data.root)
    # Before any worker starts: the datasets check annotations and files, and the batch must divide among the workers.
    data = task.train_set()
    task.val_set()
    fewest, most = (1, 1) if runs_locally() else (cluster.fewest_workers, cluster.most_workers)
    training, group = plan.training, getattr(data, "samples_per_group", 1)
    counts = usable_workers(training.global_batch, fewest, most, group)
    BatchPlan.divide(training.global_batch, training.micro_batch, counts[0], group)
    if store.local:
        require_writable(Path(store.root), "checkpoints")
        weights = sum(parameter.numel() for parameter in task.build_model().parameters())
        store.require_space(bytes_needed(weights), "checkpoints and outputs")
    initial = None
    if plan.initial:
        initial = f"initial{plan.initial.suffix}"
        store.put(plan.initial, initial)
    job = Job(
        name=plan.file_name,
        key=plan.key,
        task=plan.task,
        data=plan.data.location_for_workers(cluster, plan.task, params.active.evaluation_options_of(plan.task.name)),
        training=plan.training,
        store=store.root,
        initial=initial,
        loader_processes=cluster.loader_processes,
        instruction_sets=plan.instruction_sets,
    )
    progress = TrainingProgress(plan.stage)
    on_event = _listener(progress, tracked)
    try:
        if runs_locally():
            train_locally(job, on_event)
        else:
            with session(cluster, environment_for(plan.instruction_sets)), noted_interrupts() as interrupts:
                run_training(_train_with_deepspeed, job, cluster, counts, on_event, interrupts)
    finally:
        progress.close()


def _train_with_deepspeed(job: Job, link: Link) -> None:
    train(job, start_deepspeed, link)


def _listener(progress: TrainingProgress, tracked: Run) -> Callable[[Event], None]:
    """What the driver does with each event: show it, and record the measurements."""
    notes: set[str] = set()

    def on_event(event: Event) -> None:
        if isinstance(event, Note):  # restarted workers repeat what they said since the checkpoint
            if event.text in notes:
                return
            notes.add(event.text)
        progress.show(event)
        if isinstance(event, Row):
            tracked.metrics({"epoch": event.epoch, **event.values, **event.momentary}, event.step)

    return on_event

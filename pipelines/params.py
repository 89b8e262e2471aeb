"""params.yaml as frozen, strict models: an unknown, duplicate or mistyped key stops with its line and the nearest
right name, before anything starts.

The file is read with ruamel.yaml, as DVC does: PyYAML reads `1e-3` as a string.
"""

import codecs
import dataclasses
import difflib
import json
import math
import os
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from tcformer.errors import UserError
from tcformer.models import NetworkOptions
from tcformer.tasks import ALL_TASKS, FINETUNED, OWN_TASKS, PRETRAINING, TaskEntry, TaskSpec

Options = TypeVar("Options")  # the dataclass that a task defines
InstructionSets = Literal["native", "avx2"]
UserPath = Annotated[str, pydantic.AfterValidator(os.path.expanduser)]  # a path or an address; ~ is the home folder

_MOST_VALUES = 100_000  # a few aliases of aliases stand for more values than fit in memory


class Strict(pydantic.BaseModel):
    """Base of every section: unknown keys are errors, values are never coerced, nothing changes after loading."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Optimizer(Strict):
    """AdamW and its learning-rate schedule. Steps are optimiser steps; fractions are of the whole training."""

    lr: float = pydantic.Field(gt=0)
    layer_decay: float | None = pydantic.Field(gt=0, le=1)  # factor of lr for each layer further from the head
    weight_decay: float = pydantic.Field(ge=0)
    decay_norms_and_biases: bool  # whether weight decay also pulls one-dimensional parameters
    clip_norm: float | None = pydantic.Field(gt=0)  # largest gradient norm; null: no clipping
    warmup_steps: int = pydantic.Field(ge=0)
    warmup_lr: float = pydantic.Field(ge=0)  # learning rate of the first step
    schedule: Literal["cosine", "step", "constant"]
    final_lr: float = pydantic.Field(ge=0)  # where the cosine ends
    milestones: tuple[float, ...]  # step schedule: epochs after which the rate is multiplied by 0.1


class Training(Strict):
    """The one training loop's settings, the same for every task."""

    seed: int = pydantic.Field(ge=0)
    epochs: int = pydantic.Field(ge=0)  # 0: the weights stay as they start
    global_batch: int = pydantic.Field(ge=1)  # samples in an optimiser step, over all workers
    micro_batch: int = pydantic.Field(ge=1)  # most samples a worker processes at once; the rest accumulates
    precision: Literal["auto", "fp32", "bf16"]  # auto: bf16 on GPUs, fp32 on CPUs
    zero_stage: Literal[0, 1, 2, 3]  # DeepSpeed ZeRO
    ema_decay: float | None = pydantic.Field(gt=0, lt=1)  # moving average of the weights; null: off
    checkpoint_every: int = pydantic.Field(ge=1)  # steps between checkpoints
    validate_every: int = pydantic.Field(ge=1)  # epochs between validations; the last epoch always validates
    keep: Literal["last", "best"]  # which weights are the final ones: of the last step, or of the best validation
    log_every: int = pydantic.Field(ge=1)  # steps between metric rows
    optimizer: Optimizer


class DataSource(Strict, Generic[Options]):
    """Where a task's images come from."""

    source: Literal["generated", "official"]
    root: str | None  # official: folder of downloads, packed or unpacked; see docs/data.md
    generate: Options | None


class TrainingStage(Strict, Generic[Options]):
    """A task's training: ImageNet's is the pretraining that every fine-tuning starts from."""

    initial: UserPath | None  # weights file to start from, ours or the authors'; null: random, or pretrain's backbone
    task: Options
    training: Training


class Evaluation(Strict):
    """How a trained network is measured."""

    data_root: UserPath | None  # another dataset in the same layout; null: what prepare made
    batch: int = pydantic.Field(ge=1)
    tokens: int = pydantic.Field(ge=0)  # images on which the tokens are measured; 0: they are not


class EvaluationWithOptions(Evaluation, Generic[Options]):
    """How a trained network is measured, for a task that has options for it."""

    options: Options


class Drawing(Strict):
    """What is drawn of a trained network."""

    data_root: UserPath | None
    samples: int = pydantic.Field(ge=1)  # how many samples of the validation set are drawn
    keypoint_threshold: float = pydantic.Field(ge=0, lt=1)  # points below it are not drawn
    scale: int = pydantic.Field(ge=1)  # drawn pixels for a pixel of the network's input


class RecipeBase(Strict):
    """A recipe's sections, by task."""

    network: NetworkOptions

    @property
    def tasks(self) -> list[str]:
        """The tasks that have sections; those of the user's own datasets may have none."""
        finetuned = _section(self, "finetune")
        return [task for task in ALL_TASKS if task not in OWN_TASKS or getattr(finetuned, task) is not None]

    def data_of(self, task: str) -> DataSource[Any]:
        """The section `data.<task>`."""
        section: DataSource[Any] = _task_section(self, "data", task)
        return section

    def training_of(self, task: str) -> TrainingStage[Any]:
        """The section `pretrain` or `finetune.<task>`."""
        section: TrainingStage[Any] = _task_section(self, *training_section(task).split("."))
        return section

    def spec_of(self, task: str) -> TaskSpec:
        """The task with its options and the recipe's network."""
        return TaskSpec(task, self.training_of(task).task, self.network)

    def evaluation_of(self, task: str) -> Evaluation:
        """The section `evaluate.<task>`."""
        section: Evaluation = _task_section(self, "evaluate", task)
        return section

    def evaluation_options_of(self, task: str) -> Any:
        """The options in `evaluate.<task>`; None for a task without any."""
        return getattr(self.evaluation_of(task), "options", None)

    def drawing_of(self, task: str) -> Drawing:
        """The section `visualize.<task>`."""
        section: Drawing = _task_section(self, "visualize", task)
        return section


def _section(tree: Any, *names: str) -> Any:
    for name in names:
        tree = getattr(tree, name)
    return tree


def _task_section(recipe: RecipeBase, *names: str) -> Any:
    """A section of a task.

    Raises:
        UserError: it is one of the user's own datasets, and the recipe has no such section.
    """
    section = _section(recipe, *names)
    if section is None:
        raise UserError(
            f"params.yaml: the recipe has no section {'.'.join(names)}: expected data, finetune, evaluate and "
            f"visualize of {names[-1]}; add them with `tcformer {names[-1]} init` (docs/own-keypoints.md)"
        )
    return section


def training_section(task: str) -> str:
    """Dotted name of a task's training below its recipe in params.yaml: `pretrain` or `finetune.<task>`."""
    return "pretrain" if task == PRETRAINING else f"finetune.{task}"


if TYPE_CHECKING:
    Recipe = RecipeBase
else:  # made from the table of tasks, so that no task is listed here

    def _evaluation_section(entry: TaskEntry) -> type[Evaluation]:
        return EvaluationWithOptions[entry.evaluation] if entry.evaluation else Evaluation

    def _by_task(name: str, sections: dict[str, type[Strict]]) -> type[Strict]:
        found = {task: (kind | None, None) if task in OWN_TASKS else (kind, ...) for task, kind in sections.items()}
        return pydantic.create_model(name, __base__=Strict, **found)

    _data = {name: DataSource[entry.generate_options] for name, entry in ALL_TASKS.items()}
    _trainings = {name: TrainingStage[entry.options] for name, entry in ALL_TASKS.items()}
    _finetuned = {name: _trainings[name] for name in (*FINETUNED, *OWN_TASKS)}
    Recipe = pydantic.create_model(
        "Recipe",
        __doc__="Everything that determines a recipe's results.",
        __base__=RecipeBase,
        data=(_by_task("Data", _data), ...),
        pretrain=(_trainings[PRETRAINING], ...),
        finetune=(_by_task("Finetune", _finetuned), ...),
        evaluate=(_by_task("Evaluate", {name: _evaluation_section(entry) for name, entry in ALL_TASKS.items()}), ...),
        visualize=(_by_task("Visualize", dict.fromkeys(ALL_TASKS, Drawing)), ...),
    )


class WorkerRange(Strict):
    """A number of training processes that follows the cluster's nodes."""

    min: int = pydantic.Field(ge=1)  # with fewer a training waits for nodes
    max: int = pydantic.Field(ge=1)  # more nodes are left free

    @pydantic.model_validator(mode="after")
    def _is_ordered(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError("min is larger than max; swap them")
        return self


def _form_of_workers(value: object) -> str:
    return "range" if isinstance(value, dict | WorkerRange) else "number"


#: A fixed number of training processes, or the fewest and the most. A tag chooses, so that a fault has one message.
Workers = Annotated[
    Annotated[int, pydantic.Field(ge=1), pydantic.Tag("number")] | Annotated[WorkerRange, pydantic.Tag("range")],
    pydantic.Discriminator(_form_of_workers),
]


class Cluster(Strict):
    """Where things run. Never a result: no stage depends on it."""

    address: str | None  # of a running Ray; null: the environment's RAY_ADDRESS, else a Ray on this machine
    workers: Workers  # training processes; one GPU each where there are GPUs
    cpus_per_worker: int = pydantic.Field(ge=1)
    loader_processes: int = pydantic.Field(ge=0)  # that decode and augment, for each worker
    max_failures: int = pydantic.Field(ge=0)  # lost workers that a training survives
    stall_timeout: float = pydantic.Field(gt=0)  # seconds without a worker's sign of life or progress that end it
    wait_limit: float = pydantic.Field(gt=0)  # minutes that a stage waits for a missing node
    storage: UserPath | None  # folder or s3:// address that driver and workers reach; null: this machine's disk
    cache_size: float = pydantic.Field(gt=0)  # gigabytes of datasets that each machine keeps from the storage

    @property
    def fewest_workers(self) -> int:
        """The smallest number of workers with which a training goes on."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def most_workers(self) -> int:
        """The number of workers that a training has on a cluster with room for all."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers


class Tracking(Strict):
    experiment: str  # MLflow experiment
    registered_model: str | None = pydantic.Field(pattern=r"^[^/:]+$")  # <this>-<task> in the registry; null: in none
    system_metrics: bool  # whether trainings record the load of the driver's machine


class Params(Strict):
    """The whole file."""

    recipe: Literal["sample", "paper"]
    instruction_sets: InstructionSets  # native: the fastest for each CPU; avx2: the same bits on every x86-64 CPU
    cluster: Cluster
    tracking: Tracking
    sample: Recipe
    paper: Recipe

    @property
    def active(self) -> Recipe:
        """The recipe that `recipe` names."""
        return self.sample if self.recipe == "sample" else self.paper


def load_params(path: Path) -> Params:
    """Read and check `path`.

    Raises:
        UserError: with every fault's line, key and, for an unknown key, the nearest right name.
    """
    text = _read_text(path)
    try:
        tree = YAML().load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = (error.problem or "not YAML").split("\n")[0]
        raise UserError(f"{path}:{line}: {problem}: each key may stand once, with two spaces a level") from None
    except Exception as error:  # ruamel raises many types for text that is no YAML, and for dates that do not exist
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as YAML ({reason}): expected keys and values; restore the file"
        ) from None
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path}: expected the sections recipe, cluster, tracking, sample and paper; restore the file")
    _check_values(path, tree)
    try:
        # Through JSON, because strict mode then takes a YAML list for a tuple and an int for a float, nothing else.
        return Params.model_validate_json(json.dumps(tree))
    except pydantic.ValidationError as error:
        raise UserError("\n".join(_explain(path, tree, fault) for fault in error.errors())) from None


def _read_text(path: Path) -> str:
    """The text of `path`, which must be UTF-8, with or without the mark that Windows writes first."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run from the repository's root, or restore the file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): expected a file; restore it") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}: is in UTF-16: expected UTF-8; save it in this encoding")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: the byte {content[error.start]:#x} is not UTF-8: expected UTF-8; save it in this encoding"
        ) from None


def _check_values(path: Path, tree: CommentedMap) -> None:
    """Raise UserError for a value that is neither a text, a number, true, false, null, a list nor a section.

    The values of an alias count each time: a few lines of aliases can stand for more than fits in memory.
    """
    count = 0

    def check(name: str, value: object, line: int, depth: int) -> None:
        nonlocal count
        count += 1
        if count > _MOST_VALUES or depth > 50:
            raise UserError(
                f"{path}:{line}: {name} stands for too many values: expected parameters; remove its aliases"
            )
        if isinstance(value, CommentedMap):
            for key, entry in value.items():
                at = _line(value, key, line)
                if not isinstance(key, str):
                    raise UserError(
                        f"{path}:{at}: the key {key!r:.60} in {name or 'the file'}: expected a name; remove it"
                    )
                check(f"{name}.{key}".lstrip("."), entry, at, depth + 1)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                check(f"{name}.{index}", entry, line, depth + 1)
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}:{line}: {name} is {value}: expected a finite number")
        elif value is not None and not isinstance(value, str | int | float | ScalarBoolean):
            kind = type(value).__name__.lower()
            raise UserError(
                f"{path}:{line}: {name} is {value!s:.60}, which YAML reads as a {kind}: expected a text, a number, "
                "true, false, null or a list; put a text in quotes"
            )

    check("", tree, 1, 0)


def _line(section: CommentedMap, key: object, other: int) -> int:
    """The line of a key; `other` if it came into the section by a merge key (`<<`)."""
    try:
        return int(section.lc.key(key)[0]) + 1
    except (KeyError, TypeError, AttributeError):
        return other


def _explain(path: Path, tree: CommentedMap, fault: Any) -> str:
    keys, node, line, known = [], tree, 1, True
    for place, key in enumerate(fault["loc"], start=1):
        if isinstance(node, CommentedMap) and key in node:
            line = _line(node, key, line)
            node = node[key]
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            node = node[key]
        elif fault["type"] != "missing" or place < len(fault["loc"]):
            continue  # a union's branch name, not a key of the file
        keys.append(str(key))
    name = ".".join(keys)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        siblings = _field_names(keys[:-1])
        near = difflib.get_close_matches(keys[-1], siblings, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(siblings)}"
        return f"{path}:{line}: unknown key {name}: {hint}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{path}:{line}: {name} is missing: add it"
    shown = json.dumps(node) if known else "?"
    return f"{path}:{line}: {name} is {shown}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _field_names(keys: list[str]) -> list[str]:
    """Names of the keys of the section at `keys`."""
    node: Any = Params
    for key in keys:
        node = fields(node).get(key, Any)
    return sorted(fields(node))


def fields(section: Any) -> dict[str, Any]:
    """Field names of a section (pydantic model or dataclass, also inside `X | None`) and their types."""
    for candidate in (section, *getattr(section, "__args__", ())):
        if hasattr(candidate, "model_fields"):
            return {name: field.annotation for name, field in candidate.model_fields.items()}
        if dataclasses.is_dataclass(candidate):
            types = typing.get_type_hints(candidate)
            return {field.name: types[field.name] for field in dataclasses.fields(candidate)}
    return {}


def spec_to_json(spec: TaskSpec) -> str:
    """A task's options and network as JSON with sorted keys: what a weights file keeps."""
    return json.dumps({**_to_tree(spec.options), "network": _to_tree(spec.network)}, sort_keys=True)


def spec_from_json(task: str, text: str) -> TaskSpec:
    """The inverse of `spec_to_json`.

    Raises:
        UserError: the options are not those of this version of the task.
    """
    try:
        tree = json.loads(text)
        network = pydantic.TypeAdapter(NetworkOptions).validate_json(json.dumps(tree.pop("network")))
        options = pydantic.TypeAdapter(ALL_TASKS[task].options).validate_json(json.dumps(tree))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # also pydantic's
        raise UserError(
            f"the weights were trained with options that this version does not know ({str(error).splitlines()[0]}); "
            f"expected the options of the task {task}: train again, or use the version that wrote them"
        ) from None
    return TaskSpec(task, options, network)


def _to_tree(options: Any) -> Any:
    return json.loads(pydantic.TypeAdapter(type(options)).dump_json(options))

"""The paper's experiments by name (experiments.yaml): what each fixes in params.yaml, and which stages it needs.

Every setting is checked as params.yaml is, before anything is queued, so a renamed parameter breaks a test and not a
person's night.
"""

import dataclasses
import difflib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.params import Params, load_params
from tcformer.errors import UserError

EXPERIMENTS = Path(__file__).with_name("experiments.yaml")
#: Figures and tables of the paper, and the study.
TABLES = ("table1", "table2", "table3", "table4", "tableA2", "tableA3", "figure8", "figureA9", "study")

_OURS = ".safetensors"  # weights files that this project writes; all others are somebody's release
_PLAIN = re.compile(r"[A-Za-z_/][\w/.-]*")  # a string that -S takes as it is
_WORDS = ("null", "true", "false", "nan", "inf")  # and that it would take for something else


@dataclass(frozen=True)
class Experiment:
    """One training and measurement that DVC can start.

    Attributes:
        name: of the experiment, also in DVC.
        description: one line.
        recipe: "paper" or "sample".
        tables: of `TABLES`, those that show it.
        stages: of dvc.yaml, those whose results are wanted; DVC runs what they need too.
        settings: full name of a parameter -> its value, `recipe` not among them.
        seed: of a study's repetition.
    """

    name: str
    description: str
    recipe: str
    tables: tuple[str, ...]
    stages: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int | None = None

    @property
    def task(self) -> str:
        """The task that is measured."""
        return self.stages[0].partition("@")[2]

    @property
    def trained(self) -> str:
        """Full name of the section whose training gives the weights that are measured."""
        return f"{self.recipe}.{'pretrain' if self.task == 'imagenet' else f'finetune.{self.task}'}"

    def overrides(self) -> list[str]:
        """What `dvc exp run` takes after each -S."""
        values = {"recipe": self.recipe, **self.settings}
        return [f"{name}={_override(value)}" for name, value in values.items()]


@cache
def load_experiments(path: Path = EXPERIMENTS) -> dict[str, Experiment]:
    """All experiments by name, in the file's order; one with seeds becomes one a seed."""
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    found: dict[str, Experiment] = {}
    for name, entry in tree["experiments"].items():
        recipe = entry.get("recipe", "paper")
        tables, stages = tuple(entry["tables"]), tuple(entry["stages"])
        plain = Experiment(name, entry["description"], recipe, tables, stages, {})
        settings = {key: value for key, value in tree["base"][recipe].items() if _concerns(key, plain.task)}
        settings = {f"{recipe}.{key}": value for key, value in {**settings, **entry["settings"]}.items()}
        plain = dataclasses.replace(plain, settings=settings)
        for one in [plain] if "seeds" not in entry else [_seeded(plain, seed) for seed in entry["seeds"]]:
            found[one.name] = one
    return found


def _concerns(key: str, task: str) -> bool:
    """Whether the stages of a task read a key of `base`."""
    section, _, rest = key.partition(".")
    return section in ("network", "pretrain") or rest.startswith(f"{task}.")


def _seeded(experiment: Experiment, seed: int) -> Experiment:
    names = {f"{experiment.recipe}.pretrain", experiment.trained}
    seeds = {f"{name}.training.seed": seed for name in sorted(names, reverse=True)}
    return dataclasses.replace(
        experiment, name=f"{experiment.name}-seed{seed}", settings={**experiment.settings, **seeds}, seed=seed
    )


def _override(value: Any) -> str:
    """A value in the grammar of -S, which is Hydra's."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return json.dumps(value, separators=(",", ":"))


def select(names: Iterable[str], experiments: Mapping[str, Experiment]) -> list[Experiment]:
    """The experiments of tables or with names, each once, in the file's order.

    Raises:
        UserError: a name is neither.
    """
    wanted = set()
    for name in names:
        found = {e.name for e in experiments.values() if name in e.tables or name in (e.name, _without_seed(e))}
        if not found:
            known = dict.fromkeys([*TABLES, *(_without_seed(e) for e in experiments.values()), *experiments])
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}?" if near else f"the tables are {', '.join(TABLES)};"
            raise UserError(f"there is no table or experiment {name}: {hint} `stages.experiments list` shows all")
        wanted |= found
    return [experiment for experiment in experiments.values() if experiment.name in wanted]


def _without_seed(experiment: Experiment) -> str:
    return experiment.name if experiment.seed is None else experiment.name.rpartition("-")[0]


def measuring_released(experiment: Experiment, weights: Path) -> Experiment:
    """The same network with somebody's weights for its task, measured as they are.

    Args:
        weights: the file, such as a checkpoint that the authors released.

    Raises:
        UserError: no such file, or one of ours.
    """
    path = _existing(weights)
    if path.suffix == _OURS:
        raise UserError(f"{weights} is a file of this project: the weights that somebody released end otherwise")
    settings = {f"{experiment.trained}.initial": str(path), f"{experiment.trained}.training.epochs": 0}
    return _changed(experiment, "released", {f"{experiment.recipe}.pretrain.training.epochs": 0, **settings})


def starting_from(experiment: Experiment, weights: Path) -> Experiment:
    """The same experiment, fine-tuned from the backbone in a weights file: nothing is pretrained.

    Raises:
        UserError: no such file, or the experiment has no fine-tuning.
    """
    if experiment.task == "imagenet":
        raise UserError(f"{experiment.name} is a pretraining: a backbone to start from is for fine-tunings")
    pretrain = f"{experiment.recipe}.pretrain"
    changes = {f"{pretrain}.initial": str(_existing(weights)), f"{pretrain}.training.epochs": 0}
    return _changed(experiment, "from-backbone", changes)


def _existing(weights: Path) -> Path:
    path = weights.expanduser().resolve()  # DVC runs queued experiments in another folder
    if not path.is_file():
        raise UserError(f"there is no weights file {weights}: give the path of one")
    return path


def _changed(experiment: Experiment, suffix: str, changes: Mapping[str, Any]) -> Experiment:
    name = f"{experiment.name}-{suffix}"
    return dataclasses.replace(experiment, name=name, settings={**experiment.settings, **changes})


def params_of(experiment: Experiment, path: Path) -> Params:
    """params.yaml at ``path``, which is right in itself, with the experiment's settings, checked.

    Raises:
        UserError: a setting is wrong; see `load_params`.
    """
    tree = YAML().load(path.read_text(encoding="utf-8"))
    for name, value in {"recipe": experiment.recipe, **experiment.settings}.items():
        *sections, leaf = name.split(".")
        node = tree
        for key in sections:
            node = node.setdefault(key, {})  # a section that is not there is told below
        node[leaf] = value
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        with changed.open("w", encoding="utf-8") as stream:
            YAML().dump(tree, stream)
        try:
            return load_params(changed)
        except UserError as error:
            where = f"experiment {experiment.name} in {EXPERIMENTS.name}"
            raise UserError(re.sub(rf"{re.escape(str(changed))}(:\d+)?", where, str(error))) from None


def check_data(experiment: Experiment, params: Params) -> None:
    """Raise UserError unless params.yaml says, by whole paths, where the official data of the experiment are."""
    for task in dict.fromkeys(("imagenet", experiment.task)):
        data = getattr(params.active.data, task)
        name = f"{experiment.recipe}.data.{task}.root"
        if data.source == "official" and data.root is None:
            raise UserError(
                f"{experiment.name} needs {name}, which is null in params.yaml: give the data's folder there, once "
                "for all experiments"
            )
        if data.source == "official" and not Path(data.root).expanduser().is_absolute():
            raise UserError(
                f"{name} is {data.root} in params.yaml: give the whole path, because DVC runs queued experiments in "
                "another folder"
            )


# Which experiment a set of parameters is.


def kind_of(experiment: Experiment, params: Mapping[str, Any]) -> str | None:
    """What parameters make of the experiment.

    Args:
        params: the content of a params.yaml, as a tree.

    Returns:
        "trained" where all settings hold ("pretrain" aside, if the weights came from a file instead); "released"
        where somebody's weights for the task were measured in the same network and manner; None otherwise.
    """
    if params.get("recipe") != experiment.recipe:
        return None
    section = value_at(params, experiment.trained) or {}
    initial, epochs = section.get("initial"), value_at(section, "training.epochs")
    pretrain = f"{experiment.recipe}.pretrain."
    if initial and epochs == 0:
        same = {name: value for name, value in experiment.settings.items() if _shapes_the_network(name, experiment)}
        return "released" if Path(initial).suffix != _OURS and _hold(same, params) else None
    settings = experiment.settings
    if experiment.task != "imagenet" and (initial or value_at(params, f"{pretrain}initial")):
        settings = {name: value for name, value in settings.items() if not name.startswith(pretrain)}
    return "trained" if _hold(settings, params) else None


def _shapes_the_network(name: str, experiment: Experiment) -> bool:
    """Whether a setting matters for weights that are trained already: it shapes the network or its measurement."""
    if name.startswith(f"{experiment.recipe}.pretrain.") and experiment.task != "imagenet":
        return False
    return ".training." not in name and not name.endswith((".drop_path", ".sigma", ".pretrained"))


def _hold(settings: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return all(value_at(params, name, missing=settings) == value for name, value in settings.items())


def value_at(tree: Any, name: str, missing: Any = None) -> Any:
    """The value under a dotted name."""
    for key in name.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return missing
        tree = tree[key]
    return tree

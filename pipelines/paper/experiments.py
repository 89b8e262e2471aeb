"""The paper's experiments by name: which parameters each one sets and which stages it runs (experiments.yaml)."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.paper.figures import FIGURES
from pipelines.params import training_section
from tcformer.errors import UserError
from tcformer.tasks import PRETRAINING

EXPERIMENTS = Path(__file__).with_name("experiments.yaml")
#: Tables of the paper, the study, and two figures whose networks are also measured.
TABLES = ("table1", "table2", "table3", "table4", "tableA2", "tableA3", "figure8", "figureA9", "study")
#: Suffix of the weights files that this project writes; a released file has another one.
OWN_WEIGHTS = ".safetensors"

_UNQUOTED = re.compile(r"[A-Za-z_/][\w/.-]*")  # strings that Hydra reads as strings without quotes
_RESERVED = ("null", "true", "false", "nan", "inf")  # words among them that it does not read as strings


@dataclass(frozen=True)
class Experiment:
    """One training and its evaluation, which DVC can run.

    Attributes:
        name: of the experiment, also in DVC.
        description: one line.
        recipe: "paper" or "sample".
        tables: the tables and figures that show it.
        stages: of dvc.yaml, those whose results are wanted; DVC also runs the stages that they depend on.
        settings: dotted name of a parameter, with the recipe -> its value; the parameter `recipe` is not among them.
        seed: in a study over several seeds, that of this training.
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
        """The task that is evaluated."""
        return self.stages[0].partition("@")[2]

    @property
    def training(self) -> str:
        """Dotted name of the section whose training gives the weights that are evaluated."""
        return f"{self.recipe}.{training_section(self.task)}"

    @property
    def pretraining(self) -> str:
        """Dotted name of the section of the pretraining."""
        return f"{self.recipe}.{training_section(PRETRAINING)}"

    @property
    def unseeded_name(self) -> str:
        """The name without its seed."""
        return self.name if self.seed is None else self.name.rpartition("-")[0]

    def overrides(self) -> list[str]:
        """The arguments of `dvc exp run -S`, one for each parameter."""
        values = {"recipe": self.recipe, **self.settings}
        return [f"{name}={_override(value)}" for name, value in values.items()]


@cache
def load_experiments(path: Path = EXPERIMENTS) -> dict[str, Experiment]:
    """All experiments by name, in the file's order; an entry with seeds gives one experiment for each seed."""
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    found: dict[str, Experiment] = {}
    for name, entry in tree["experiments"].items():
        recipe = entry.get("recipe", "paper")
        figures = (figure for figure, content in FIGURES.items() if name in content.experiments)
        tables, stages = (*entry["tables"], *figures), tuple(entry["stages"])
        experiment = Experiment(name, entry["description"], recipe, tables, stages, {})
        base = {key: value for key, value in tree["base"][recipe].items() if _concerns(key, experiment.task)}
        settings = {f"{recipe}.{key}": value for key, value in {**base, **entry["settings"]}.items()}
        experiment = dataclasses.replace(experiment, settings=settings)
        for one in [_with_seed(experiment, seed) for seed in entry["seeds"]] if "seeds" in entry else [experiment]:
            found[one.name] = one
    return found


def _concerns(key: str, task: str) -> bool:
    """Whether the stages of a task depend on a parameter of `base`."""
    section, _, rest = key.partition(".")
    return section in ("network", training_section(PRETRAINING)) or rest.startswith(f"{task}.")


def _with_seed(experiment: Experiment, seed: int) -> Experiment:
    sections = dict.fromkeys((experiment.pretraining, experiment.training))
    seeds = {f"{section}.training.seed": seed for section in sections}
    return dataclasses.replace(
        experiment, name=f"{experiment.name}-seed{seed}", settings={**experiment.settings, **seeds}, seed=seed
    )


def _override(value: Any) -> str:
    """A value in the grammar of -S, which is Hydra's."""
    if isinstance(value, str):
        if _UNQUOTED.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return json.dumps(value, separators=(",", ":"))


def select(names: Iterable[str], experiments: Mapping[str, Experiment]) -> list[Experiment]:
    """The experiments with these names or in these tables or figures, each once, in the file's order.

    Raises:
        UserError: a name is neither an experiment nor a table or figure.
    """
    wanted = set()
    for name in names:
        found = {e.name for e in experiments.values() if name in (*e.tables, e.name, e.unseeded_name)}
        if not found:
            known = dict.fromkeys([*TABLES, *FIGURES, *(e.unseeded_name for e in experiments.values()), *experiments])
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = (
                f"did you mean {', '.join(near)}?"
                if near
                else f"expected a name or one of {', '.join([*TABLES, *FIGURES])};"
            )
            raise UserError(f"no table or experiment is called {name}: {hint} `stages.experiments list` shows all")
        wanted |= found
    return [experiment for experiment in experiments.values() if experiment.name in wanted]


def with_released_weights(experiment: Experiment, weights: Path) -> Experiment:
    """The experiment's network with weights that somebody released for its task: evaluated only, nothing is trained.

    Args:
        weights: the file, such as a checkpoint of the authors.

    Raises:
        UserError: the file does not exist, or this project wrote it.
    """
    path = _existing(weights)
    if path.suffix == OWN_WEIGHTS:
        raise UserError(
            f"{weights}: this project writes {OWN_WEIGHTS} files; expected a file that somebody released; give its path"
        )
    settings = {
        f"{experiment.pretraining}.training.epochs": 0,
        f"{experiment.training}.initial": str(path),
        f"{experiment.training}.training.epochs": 0,
    }
    return _changed(experiment, "released", settings)


def with_backbone(experiment: Experiment, weights: Path) -> Experiment:
    """The experiment, fine-tuned from the backbone in a weights file: nothing is pretrained.

    Raises:
        UserError: the file does not exist, or the experiment has no fine-tuning.
    """
    if experiment.task == PRETRAINING:
        raise UserError(f"{experiment.name} is a pretraining: only fine-tunings start from a backbone; leave it out")
    settings = {
        f"{experiment.pretraining}.initial": str(_existing(weights)),
        f"{experiment.pretraining}.training.epochs": 0,
    }
    return _changed(experiment, "from-backbone", settings)


def _existing(weights: Path) -> Path:
    path = weights.expanduser().resolve()  # absolute: DVC runs queued experiments in another folder
    if not path.is_file():
        raise UserError(f"{weights}: the weights file does not exist; give the path of a file")
    return path


def _changed(experiment: Experiment, suffix: str, settings: Mapping[str, Any]) -> Experiment:
    name = f"{experiment.name}-{suffix}"
    return dataclasses.replace(experiment, name=name, settings={**experiment.settings, **settings})

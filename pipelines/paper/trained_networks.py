"""Where the network of an experiment is: in the workspace, or in a commit or an experiment of DVC."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.layout import Layout
from pipelines.paper.dvc_experiments import CommittedState, committed_states, fetch_file, weights_fit_params
from pipelines.paper.experiments import Experiment
from pipelines.paper.origins import origin_of
from pipelines.trained import trained_task
from tcformer.errors import UserError
from tcformer.models import read_about

# Ends of the names of the settings in which the networks of a figure differ.
_DISTINGUISHING = (".token_reduction", ".keypoints", ".neck")


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network of an experiment.

    Attributes:
        experiment: the experiment.
        state: the commit that has it; None: the workspace.
    """

    experiment: Experiment
    state: CommittedState | None = None

    @property
    def found_in(self) -> str:
        """Where it is, for people."""
        return "the workspace" if self.state is None else self.state.name

    def weights(self, repository: Path, folder: Path) -> Path:
        """Its weights; those of a commit are put into `folder`."""
        return self._file(weights_of(self.experiment, repository), repository, folder)

    def drawn_tokens(self, repository: Path, folder: Path) -> Path | None:
        """The picture that the stage `visualize` drew of it; None if that stage has not run."""
        path = layout_of(self.experiment, repository).run("visualize", self.experiment.task) / "tokens.png"
        drawn = path.is_file() if self.state is None else _relative(path.parent, repository) in self.state.outs
        return self._file(path, repository, folder) if drawn else None

    def _file(self, path: Path, repository: Path, folder: Path) -> Path:
        if self.state is None:
            return path
        copy = folder / f"{self.experiment.name}-{path.name}"
        fetch_file(_relative(path, repository), self.state.commit, repository, copy)
        return copy


def of_recipe(experiment: Experiment, recipe: str) -> Experiment:
    """The experiment as another recipe has it: with the settings in which the networks of a figure differ."""
    if recipe == experiment.recipe:
        return experiment
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-{recipe}",
        recipe=recipe,
        settings={
            f"{recipe}.{name.partition('.')[2]}": value
            for name, value in experiment.settings.items()
            if name.endswith(_DISTINGUISHING)
        },
    )


def find_networks(experiments: Iterable[Experiment], repository: Path) -> dict[str, TrainedNetwork]:
    """Find the network of each experiment: that of the workspace, else that of the latest commit.

    Args:
        experiments: as the recipe has them, see `of_recipe`.
        repository: its folder.

    Returns:
        Name of the experiment -> its network; those that have not run are missing.

    Raises:
        UserError: DVC fails; the message says why.
    """
    found: dict[str, TrainedNetwork] = {}
    missing: list[Experiment] = []
    params = YAML(typ="safe").load((repository / "params.yaml").read_text(encoding="utf-8"))
    for experiment in experiments:
        fits = origin_of(experiment, params) and weights_of(experiment, repository).is_file()
        if fits and weights_fit_params(experiment.task, experiment.recipe, repository):
            found[experiment.name] = TrainedNetwork(experiment)
        else:
            missing.append(experiment)
    states = sorted(committed_states(repository), key=lambda state: state.commit_time) if missing else []
    for experiment in missing:
        weights = _relative(weights_of(experiment, repository), repository)
        for state in reversed(states):
            if weights in state.outs and origin_of(experiment, state.params_of(experiment.task)):
                found[experiment.name] = TrainedNetwork(experiment, state)
                break
    return found


def layout_of(experiment: Experiment, repository: Path) -> Layout:
    """The folders of an experiment's recipe."""
    return Layout(experiment.recipe, repository)


def weights_of(experiment: Experiment, repository: Path) -> Path:
    """Where an experiment leaves its weights."""
    return layout_of(experiment, repository).weights(experiment.task)


def _relative(path: Path, repository: Path) -> str:
    return path.relative_to(repository).as_posix()


def check_given(weights: Path, experiment: Experiment) -> None:
    """Check that a file that a user gives for an experiment contains such a network, of whatever size.

    Raises:
        UserError: there is no such file, this project did not write it, its network is of another task, or it differs
            in a setting in which the networks of a figure differ.
    """
    task = read_about(weights)[0]["task"]
    if task != experiment.task:
        raise UserError(
            f"{weights}: the network is of the task {task}; {experiment.name} needs one of {experiment.task}; give "
            "another file"
        )
    spec = trained_task(task, weights)
    for name, expected in experiment.settings.items():
        if name.endswith(_DISTINGUISHING):
            leaf = name.rpartition(".")[2]
            found = getattr(spec.network if ".network." in name else spec.options, leaf)
            if found != expected:
                raise UserError(
                    f"{weights}: the network has {leaf}: {found}; {experiment.name} needs {expected}; give another file"
                )

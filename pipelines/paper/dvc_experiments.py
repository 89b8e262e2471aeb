"""DVC's experiments through its command line: queue them, start the queue, read what they measured."""

from __future__ import annotations

import copy
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.dotted import assign
from pipelines.paper.comparison import MeasuredRun
from pipelines.paper.experiments import Experiment
from pipelines.params import load_params, spec_to_json, training_section
from pipelines.running.commands import dvc, git
from tcformer.errors import UserError
from tcformer.tasks import TASKS

# Of an experiment: DVC files it under the commit that it starts from.
_EXPERIMENT_REF = re.compile(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/", re.MULTILINE)


def queue_command(experiment: Experiment) -> list[str]:
    """The command that queues an experiment."""
    settings = [argument for override in experiment.overrides() for argument in ("-S", override)]
    return ["dvc", "exp", "run", "--queue", "--name", experiment.name, *settings, *experiment.stages]


def as_typed(command: list[str]) -> str:
    """A command as one would type it in a shell."""
    return shlex.join(command)


def queue(experiments: Iterable[Experiment], repository: Path) -> Iterator[tuple[Experiment, str | None]]:
    """Put experiments into DVC's queue, one for each step of the iteration.

    Yields:
        Each experiment, with None if it was queued now. One that DVC has already is not queued again, but comes with
        its state: "queued", "running" or "success".

    Raises:
        UserError: DVC fails; the message says why.
    """
    states = states_of_experiments(repository)
    for experiment in experiments:
        state = states.get(experiment.name)
        if state is None:
            _dvc(queue_command(experiment), repository)
        yield experiment, state


def start_queue(repository: Path) -> str:
    """Start the queue's worker, which runs the experiments one by one in the background.

    Returns:
        What DVC printed.

    Raises:
        UserError: DVC fails; the message says why.
    """
    return _dvc(["dvc", "queue", "start"], repository)


def states_of_experiments(repository: Path) -> dict[str, str]:
    """Name -> "queued", "running" or "success" for the experiments that DVC has for the current commit.

    Failed ones are not among them.
    """
    found = ((entry.get("name"), entry.get("executor")) for entry in _entries(_show(repository, ["HEAD"])))
    states = {name: (executor or {"state": "success"})["state"] for name, executor in found if name}
    return {name: state for name, state in states.items() if state != "failed"}


def measured_runs(repository: Path) -> list[MeasuredRun]:
    """Everything measured in the workspace, the current commit, all experiments, and the commits they started from.

    Each comes with the parameters with which it was measured, even if params.yaml beside it has changed since.

    Raises:
        UserError: DVC fails; the message says why.
    """
    return [run for state in all_states(repository) for run in runs_in(state, repository)]


def all_states(repository: Path) -> list[dict[str, Any]]:
    """The workspace, the current commit, the commits that experiments started from, and all experiments.

    Each is a state as `dvc exp show --json` describes it.

    Raises:
        UserError: DVC fails; the message says why.
    """
    commits = _show(repository, _starting_commits(repository))
    return [*commits, *(entry["revs"][0] for entry in _entries(commits) if entry["revs"])]


def _entries(commits: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for commit in commits:
        yield from commit.get("experiments") or ()


def runs_in(state: Mapping[str, Any], repository: Path) -> Iterator[MeasuredRun]:
    """What one state of the repository measured, a run for each task.

    Args:
        state: a commit, an experiment or the workspace, as `dvc exp show --json` describes it.
        repository: its folder.
    """
    data = state.get("data") or {}
    params = (data.get("params") or {}).get("params.yaml", {}).get("data") or {}
    recipe = params.get("recipe", "")
    files = {task: read_output(f"runs/{recipe}/evaluate/{task}/metrics.json", state, repository) for task in TASKS}
    found = {task: json.loads(text) for task, text in files.items() if text}
    if not found:
        return
    committed = state["rev"] != "workspace"
    lock = _locked_params(state["rev"], repository) if committed else {}
    for task, metrics in found.items():
        if metrics and (committed or weights_fit_params(task, recipe, repository)):
            yield MeasuredRun(
                name=state.get("name") or state["rev"],
                commit_time=data.get("timestamp") or "",
                params=_with_locked(params, lock, task),
                metrics={task: metrics},
            )


@dataclass(frozen=True)
class CommittedState:
    """A commit, or an experiment of DVC, with what its stages made.

    Attributes:
        name: of the experiment; of a commit, its hash.
        commit: its hash.
        commit_time: in ISO 8601.
        outs: files and folders that its stages made, relative to the repository.
        params: its params.yaml, as a tree.
        lock: stage -> parameters that made its outputs, see `_locked_params`.
    """

    name: str
    commit: str
    commit_time: str
    outs: frozenset[str]
    params: Mapping[str, Any]
    lock: Mapping[str, Mapping[str, Any]]

    def params_of(self, task: str) -> dict[str, Any]:
        """The parameters that made the outputs of a task's stages."""
        return _with_locked(self.params, self.lock, task)


def committed_states(repository: Path) -> Iterator[CommittedState]:
    """The current commit, all experiments of DVC that have run, and the commits that they started from.

    Raises:
        UserError: DVC fails; the message says why.
    """
    for state in all_states(repository):
        data = state.get("data") or {}
        outs = frozenset(name for name, out in (data.get("outs") or {}).items() if out["hash"])
        if state["rev"] != "workspace" and outs:
            yield CommittedState(
                name=state.get("name") or state["rev"],
                commit=state["rev"],
                commit_time=data.get("timestamp") or "",
                outs=outs,
                params=(data.get("params") or {}).get("params.yaml", {}).get("data") or {},
                lock=_locked_params(state["rev"], repository),
            )


def read_output(path: str, state: Mapping[str, Any], repository: Path) -> str | None:
    """The text of an output of a stage in a state of the repository, from DVC's cache or its default remote.

    Args:
        path: of the file, relative to the repository.
        state: see `all_states`.
        repository: its folder.

    Returns:
        None if no stage has written it there, or DVC lacks it; then stderr says so.
    """
    if state["rev"] == "workspace":
        file = repository / path
        return file.read_text(encoding="utf-8") if file.is_file() else None
    if not (((state.get("data") or {}).get("outs") or {}).get(path) or {}).get("hash"):
        return None
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return str(dvc.api.read(path, repo=str(repository), rev=state["rev"], encoding="utf-8"))
    except (DvcException, OSError) as error:
        name = state.get("name") or state["rev"]
        print(f"{path} of {name} is left out: neither in DVC's cache nor in its remote ({error})", file=sys.stderr)
        return None


def fetch_file(path: str, commit: str, repository: Path, to: Path) -> None:
    """Copy an output of a stage from DVC's cache.

    Args:
        path: of the file, relative to the repository.
        commit: that has it.
        repository: its folder.
        to: the copy; it must not exist.

    Raises:
        UserError: DVC fails, for instance because the file is no longer in the cache.
    """
    _dvc(["dvc", "get", ".", path, "--rev", commit, "--out", str(to)], repository)


def _locked_params(commit: str, repository: Path) -> dict[str, dict[str, Any]]:
    """Stage -> dotted names and values of the parameters that made a commit's outputs, from its dvc.lock."""
    try:
        lock = git(repository, "show", f"{commit}:dvc.lock")
    except UserError:  # the commit has none
        lock = "{}"
    stages = YAML(typ="safe").load(lock).get("stages") or {}
    return {name: stage.get("params", {}).get("params.yaml", {}) for name, stage in stages.items()}


def _with_locked(params: Mapping[str, Any], lock: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Any]:
    """The parameters, with those of a task's stages as dvc.lock has them."""
    tree = copy.deepcopy(dict(params))
    for stage in (f"prepare@{task}", "pretrain", f"finetune@{task}", f"evaluate@{task}"):
        for name, value in lock.get(stage, {}).items():
            assign(tree, name, value)
    return tree


def weights_fit_params(task: str, recipe: str, repository: Path) -> bool:
    """Whether the weights in the workspace are of the network and task options that its params.yaml has now."""
    folder = repository / "runs" / recipe / training_section(task).replace(".", "/")
    provenance = folder / "provenance.json"
    if not provenance.is_file():
        return False
    trained = json.loads(provenance.read_text(encoding="utf-8"))["options"]
    spec = load_params(repository / "params.yaml").active.spec_of(task)
    return bool(trained == json.loads(spec_to_json(spec)))


def _starting_commits(repository: Path) -> list[str]:
    """HEAD and the commits that DVC has experiments for; showing all commits would take a fifth of a second each."""
    refs = git(repository, "for-each-ref", "--format=%(refname)", "refs/exps")
    return ["HEAD", *dict.fromkeys("".join(sha) for sha in _EXPERIMENT_REF.findall(refs))]


def _show(repository: Path, commits: Iterable[str]) -> list[dict[str, Any]]:
    revisions = [argument for commit in commits for argument in ("--rev", commit)]
    shown: list[dict[str, Any]] = json.loads(_dvc(["dvc", "exp", "show", "--json", *revisions], repository))
    return shown


def _dvc(command: list[str], repository: Path) -> str:
    """Run DVC and return what it printed. Raises UserError with its error message if it fails."""
    git(repository, "rev-parse", "--verify", "HEAD")  # DVC's experiments need a commit
    done = dvc(repository, *command[1:])
    if done.returncode != 0:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no message")
        raise UserError(f"`{as_typed(command[:3])}` failed: {reason.removeprefix('ERROR: ')}")
    return done.stdout

"""DVC's experiments through its command line: queue them, start the queue, read what they measured."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from pipelines.paper.comparison import Measured
from pipelines.paper.experiments import Experiment, value_at
from tcformer.errors import UserError
from tcformer.tasks import TASKS

_EXPERIMENT_REF = re.compile(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/", re.MULTILINE)  # of the commit it starts from


class _Said(NamedTuple):
    status: int
    output: str
    errors: str


def queue_command(experiment: Experiment) -> list[str]:
    """The command that queues an experiment."""
    settings = [argument for override in experiment.overrides() for argument in ("-S", override)]
    return ["dvc", "exp", "run", "--queue", "--name", experiment.name, *settings, *experiment.stages]


def shell(command: list[str]) -> str:
    """A command as one would type it."""
    return shlex.join(command)


def queue(experiment: Experiment, repository: Path) -> None:
    """Put an experiment into DVC's queue. Raises UserError with DVC's reason if it refuses."""
    _dvc(queue_command(experiment), repository)


def start(repository: Path) -> str:
    """Start the queue's worker, which runs one experiment after the other in the background; return what DVC says.

    Raises:
        UserError: DVC refuses.
    """
    return _dvc(["dvc", "queue", "start"], repository)


def present(repository: Path) -> dict[str, str]:
    """Experiments that DVC holds for the current commit: name -> "queued", "running" or "success"."""
    states = ((entry.get("name"), entry.get("executor")) for entry in _entries(_show(repository, ["HEAD"])))
    named = {name: (executor or {"state": "success"})["state"] for name, executor in states if name}
    return {name: state for name, state in named.items() if state != "failed"}


def measured(repository: Path) -> list[Measured]:
    """What the workspace, the current commit, and all experiments with the commits that they started from measured.

    Each measurement comes with the parameters that made it, which params.yaml beside it may not have any more.

    Raises:
        UserError: DVC refuses.
    """
    commits = _show(repository, _starting_points(repository))
    states = [*commits, *(entry["revs"][0] for entry in _entries(commits) if entry["revs"])]
    return [run for state in states for run in _measured(state, repository)]


def _entries(commits: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for commit in commits:
        yield from commit.get("experiments") or ()


def _measured(state: Mapping[str, Any], repository: Path) -> Iterator[Measured]:
    data = state.get("data") or {}
    params = (data.get("params") or {}).get("params.yaml", {}).get("data") or {}
    recipe, files = params.get("recipe"), data.get("metrics") or {}
    found = {task: files.get(f"runs/{recipe}/evaluate/{task}/metrics.json", {}).get("data") for task in TASKS}
    if not any(found.values()):
        return
    committed = state["rev"] != "workspace"
    lock = _locked_params(state["rev"], repository) if committed else {}
    for task, metrics in found.items():
        if metrics and (committed or _made_the_weights(params, task, repository)):
            made = _with_locked(params, lock, task)
            yield Measured(state.get("name") or state["rev"], data.get("timestamp") or "", made, {task: metrics})


def _locked_params(commit: str, repository: Path) -> dict[str, dict[str, Any]]:
    """Stage -> parameters with which a commit's outputs were made, from its dvc.lock."""
    stages = YAML(typ="safe").load(_run(["git", "show", f"{commit}:dvc.lock"], repository).output or "{}").get("stages")
    return {name: stage.get("params", {}).get("params.yaml", {}) for name, stage in (stages or {}).items()}


def _with_locked(params: Mapping[str, Any], lock: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Any]:
    tree = copy.deepcopy(dict(params))
    for stage in (f"prepare@{task}", "pretrain", f"finetune@{task}", f"evaluate@{task}"):
        for name, value in lock.get(stage, {}).items():
            *sections, leaf = name.split(".")
            node = tree
            for key in sections:
                node = node.setdefault(key, {})
            node[leaf] = value
    return tree


def _made_the_weights(params: Mapping[str, Any], task: str, repository: Path) -> bool:
    """Whether the weights in the workspace are of the network and task options that params.yaml has now."""
    recipe = params["recipe"]
    section = "pretrain" if task == "imagenet" else f"finetune.{task}"
    path = repository / "runs" / recipe / section.replace(".", "/") / "provenance.json"
    if not path.is_file():
        return False
    options = {**value_at(params, f"{recipe}.{section}.task"), "network": params[recipe]["network"]}
    return json.loads(path.read_text(encoding="utf-8"))["options"] == options


def _starting_points(repository: Path) -> list[str]:
    """HEAD and the commits that DVC holds experiments for: to show every commit takes a fifth of a second for each."""
    refs = _run(["git", "for-each-ref", "--format=%(refname)", "refs/exps"], repository).output
    return ["HEAD", *dict.fromkeys("".join(sha) for sha in _EXPERIMENT_REF.findall(refs))]


def _show(repository: Path, commits: Iterable[str]) -> list[dict[str, Any]]:
    revisions = [argument for commit in commits for argument in ("--rev", commit)]
    return json.loads(_dvc(["dvc", "exp", "show", "--json", *revisions], repository))


def _dvc(command: list[str], repository: Path) -> str:
    """Run DVC and return what it printed. Raises UserError with its last words if it fails."""
    if _run(["git", "rev-parse", "--verify", "HEAD"], repository).status != 0:
        raise UserError(
            f"{repository} is no git repository with a commit, which DVC's experiments need: run `git init`, then "
            "commit the project's files"
        )
    done = _run([sys.executable, "-m", *command], repository)
    if done.status != 0:
        said = [line for line in f"{done.output}\n{done.errors}".splitlines() if line.strip()]
        reason = next((line for line in reversed(said) if "ERROR" in line), said[-1] if said else "no message")
        raise UserError(f"`{shell(command[:3])}` refused: {reason.removeprefix('ERROR: ')}")
    return done.output


def _run(command: list[str], repository: Path) -> _Said:
    # The stages' `python` is to be this one, also in the queue's worker.
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": tools}
    # Files instead of pipes: the queue's worker inherits them, and a pipe would be open until it ends.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command, cwd=repository, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False, env=environment
        )
        out.seek(0)
        errors.seek(0)
        return _Said(done.returncode, out.read(), errors.read())

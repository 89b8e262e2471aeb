"""DVC's experiments through its command line: queue them, start the queue, read what they measured."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.comparison import Measured
from pipelines.experiments import Experiment
from tcformer.errors import UserError
from tcformer.tasks import TASKS


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
    """Start the queue's worker, one experiment at a time; return what DVC says."""
    return _dvc(["dvc", "queue", "start"], repository)


def present(repository: Path) -> dict[str, str]:
    """Experiments that DVC holds for the current commit: name -> "queued", "running" or "success"."""
    states = ((entry.get("name"), entry.get("executor")) for entry in _entries(_show(repository, everything=False)))
    named = {name: (executor or {"state": "success"})["state"] for name, executor in states if name}
    return {name: state for name, state in named.items() if state != "failed"}


def measured(repository: Path) -> list[Measured]:
    """What the workspace, the commits and the experiments of all commits measured.

    Raises:
        UserError: DVC refuses.
    """
    commits = _show(repository, everything=True)
    states = [*commits, *(entry["revs"][0] for entry in _entries(commits) if entry["revs"])]
    return [run for state in states if (run := _measured(state)) is not None]


def _entries(commits: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for commit in commits:
        yield from commit.get("experiments") or ()


def _measured(state: Mapping[str, Any]) -> Measured | None:
    data = state.get("data") or {}
    params = (data.get("params") or {}).get("params.yaml", {}).get("data")
    if not params:
        return None
    found = {}
    for task in TASKS:
        file = (data.get("metrics") or {}).get(f"runs/{params.get('recipe')}/evaluate/{task}/metrics.json", {})
        if file.get("data"):
            found[task] = file["data"]
    return Measured(state.get("name") or state["rev"], data.get("timestamp") or "", params, found)


def _show(repository: Path, everything: bool) -> list[dict[str, Any]]:
    printed = _dvc(["dvc", "exp", "show", "--json", *(["--all-commits"] if everything else [])], repository)
    return json.loads(printed)


def _dvc(command: list[str], repository: Path) -> str:
    """Run DVC and return what it printed. Raises UserError with its last words if it fails."""
    inside = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"], cwd=repository, capture_output=True, text=True, check=False
    )
    if inside.returncode != 0:
        raise UserError(
            f"{repository} is no git repository with a commit, which DVC's experiments need: run `git init`, then "
            "commit the project's files"
        )
    # The stages' `python` is to be this one, also in the queue's worker.
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    run = [sys.executable, "-m", *command]
    done = subprocess.run(
        run, cwd=repository, capture_output=True, text=True, check=False, env={**os.environ, "PATH": tools}
    )
    if done.returncode != 0:
        said = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        reason = next((line for line in reversed(said) if "ERROR" in line), said[-1] if said else "no message")
        raise UserError(f"`{shell(command[:3])}` refused: {reason.removeprefix('ERROR: ')}")
    return done.stdout

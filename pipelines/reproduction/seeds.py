"""Run the sample recipe with several seeds, each in a copy of the repository.

The copies are below `.dvc/tmp/seeds`, as those of DVC's queue are, and share the repository's git objects and DVC's
cache: data are not generated again, and what a seed has trained already is taken from the cache. A copy that stays can
resume trainings from their checkpoints.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.dotted import assign, lookup
from pipelines.layout import Layout
from pipelines.params import load_params, training_section
from pipelines.provenance import CODE, cpu
from pipelines.reproduction.measures import RECIPE, read_measures
from pipelines.reproduction.record import RECORD, Conditions, SeedRecord, read_record, write_record
from pipelines.running.commands import dvc, dvc_cache, git
from tcformer.errors import UserError
from tcformer.tasks import TASKS


def seed_settings(seed: int) -> dict[str, object]:
    """Dotted names and values of the parameters of a run with a seed: that of the trainings, not that of the data."""
    seeds = {f"{RECIPE}.{training_section(task)}.training.seed": seed for task in TASKS}
    return {"recipe": RECIPE, **seeds}


def run_seeds(seeds: Iterable[int], repository: Path, record: Path = RECORD) -> SeedRecord:
    """Run the recipe, as the current commit has it, with each seed, and write the record after each of them.

    A second call continues where the first one ended. Seeds that the record has already, of the same commit and
    conditions, are not run again.

    Args:
        seeds: of all trainings.
        repository: its folder.
        record: the file to write.

    Raises:
        UserError: the code or the parameters are not committed, or a run fails.
    """
    commit = _commit(repository)
    finished: SeedRecord | None = None
    for seed in sorted(dict.fromkeys(seeds)):
        copy = _copy(seed, commit, repository)
        params = load_params(copy / "params.yaml")
        conditions = Conditions(commit, cpu()["model"], params.cluster.most_workers, params.instruction_sets)
        if finished is None:
            finished = read_record(record)
            if finished is None or finished.conditions != conditions:
                finished = SeedRecord(conditions, "", (), {})
        if seed in finished.seeds:
            print(f"seed {seed}: recorded already for this commit", flush=True)
            continue
        print(f"seed {seed}: running in {copy}", flush=True)
        _reproduce(seed, copy)
        finished = finished.with_seed(seed, read_measures(Layout(RECIPE, copy)), date.today().isoformat())
        write_record(finished, record)
        print(f"seed {seed}: figures written to {record}", flush=True)
    if finished is None:
        raise UserError("no seeds: expected at least one; give --seeds 0 1 2")
    return finished


def _commit(repository: Path) -> str:
    """The current commit.

    Raises:
        UserError: there is none, or what determines the results differs from it.
    """
    head = git(repository, "rev-parse", "--verify", "HEAD").strip()
    places = (*CODE, "params.yaml", "dvc.yaml")
    if lines := git(repository, "status", "--porcelain", "--untracked-files=no", "--", *places).splitlines():
        raise UserError(
            f"{lines[0][3:]} has changes that are not committed: the figures of all seeds have to be of one commit; "
            "commit or undo the changes"
        )
    return head


def _copy(seed: int, commit: str, repository: Path) -> Path:
    """A copy of the repository at a commit, with the seed in its params.yaml; one that exists is used again."""
    copy = repository / ".dvc" / "tmp" / "seeds" / f"seed-{seed}"
    if not (copy / ".git").exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        git(repository, "clone", "--quiet", "--shared", "--no-checkout", str(repository), str(copy))
    current = git(copy, "rev-parse", "--verify", "HEAD").strip()
    if current != commit or not (copy / "params.yaml").is_file():
        git(copy, "checkout", "--quiet", "--force", "--detach", commit)
    if cache := dvc_cache(repository):
        dvc(copy, "config", "--local", "cache.dir", str(cache))
    _set(copy / "params.yaml", seed_settings(seed))
    return copy


def _set(path: Path, settings: dict[str, object]) -> None:
    """Write parameters into a file, which stays as it is if it has them."""
    yaml = YAML()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    if all(lookup(tree, name) == value for name, value in settings.items()):
        return
    for name, value in settings.items():
        assign(tree, name, value)
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def _reproduce(seed: int, copy: Path) -> None:
    """Run the trainings and evaluations that are not up to date."""
    stages = [f"evaluate@{task}" for task in TASKS]
    command = [sys.executable, "-m", "pipelines.shared_ray", "--", sys.executable, "-m", "dvc", "repro", *stages]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": tools, "PYTHONPATH": str(copy)}
    with subprocess.Popen(command, cwd=copy, env=environment) as process:
        try:
            status = process.wait()
        except BaseException:  # a signal: the trainings take a checkpoint and stop
            process.terminate()
            raise
    if status != 0:
        raise UserError(
            f"seed {seed}: `dvc repro` in {copy} ended with status {status}; its messages are above; the same command "
            "continues from there"
        )

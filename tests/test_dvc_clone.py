"""What DVC shows in a fresh clone, which has no data, and what a remote brings to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.layout import dvc_environment
from pipelines.running.commands import git

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

#: Runs DVC's commands in one process, because each `import dvc` takes a second.
PROGRAM = """
import contextlib, io, json, sys
from dvc.cli import main
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(command)
    print(json.dumps([status, out.getvalue()]))
    if status:
        sys.exit(f"dvc {' '.join(command)}: exit status {status}")
"""
DATA = "from pathlib import Path; Path('data').mkdir(); Path('data/a').write_bytes(bytes(range(256)) * 300)"


def dvc(folder: Path, *commands: str) -> list[str]:
    """Run commands of DVC in a folder; each must succeed. Returns what each printed."""
    environment = {**os.environ, **dvc_environment(folder), "COLUMNS": "120"}
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line)[1] for line in done.stdout.splitlines()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository's history")
def test_figures_and_parameters_are_shown_without_data(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(ROOT), "clone")
    clone = tmp_path / "clone"
    commands = ("metrics show", "exp show", "metrics diff HEAD", "params diff HEAD")
    metrics, experiments, *differences = dvc(clone, *commands)
    assert "!" not in metrics and max(map(len, metrics.splitlines())) <= 120, metrics
    rows = [line.split()[0] for line in metrics.splitlines()[1:]]
    assert sorted(rows) == sorted(path.relative_to(clone).as_posix() for path in clone.glob("metrics/*/*.json"))
    assert "workspace" in experiments and "!" not in experiments
    assert differences == ["", ""]

    (clone / "metrics/sample/evaluate-face.json").write_text('{"NME": 0.5}\n')
    parameters = clone / "params.yaml"
    changed = parameters.read_text(encoding="utf-8").replace(" seed: 1\n", " seed: 71\n", 1)
    parameters.write_text(changed, encoding="utf-8")
    of_metrics, of_parameters = dvc(clone, *commands[2:])
    assert "evaluate-face.json" in of_metrics and "0.5" in of_metrics and "evaluate-mesh" not in of_metrics
    assert "seed" in of_parameters and "71" in of_parameters


def test_a_folder_as_remote_brings_the_same_bytes_to_another_clone(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    git(first, "init", "--quiet")
    (first / "make.py").write_text(DATA)
    stage = f"{{cmd: {sys.executable} make.py, deps: [make.py], outs: [data]}}"
    (first / "dvc.yaml").write_text(f"stages: {{make: {stage}}}\n")
    dvc(first, "init --quiet", "repro --quiet", f"remote add --default store {tmp_path / 'remote'}", "push")
    git(first, "add", "--all")
    git(first, "-c", "user.name=name", "-c", "user.email=name@example.org", "commit", "--quiet", "--message", "data")
    git(tmp_path, "clone", "--quiet", "first", "second")
    assert not (second / "data").exists()
    dvc(second, "pull")
    assert [path.name for path in (second / "data").iterdir()] == ["a"]
    assert (second / "data/a").read_bytes() == (first / "data/a").read_bytes()

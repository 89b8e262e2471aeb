"""Which stages belong to one execution of the graph."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.running.execution import current_execution

SHOW = "import json, pipelines.running.execution as e; print(json.dumps(vars(e.current_execution())))"


def stages_of(dvc: Path, experiment: str) -> list[dict[str, str]]:
    """Run a program in the place of DVC that starts two stages."""
    environment = {"DVC_STAGE": "face", "PYTHONPATH": str(Path(__file__).parents[3]), "DVC_EXP_NAME": experiment}
    command = [sys.executable, str(dvc), "repro"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_stages_of_one_dvc_process_belong_together(tmp_path: Path) -> None:
    dvc = tmp_path / "dvc"
    dvc.write_text(
        f"import subprocess, sys\nfor _ in range(2):\n    subprocess.run([sys.executable, '-c', {SHOW!r}])\n"
    )
    first, again = stages_of(dvc, "")
    other = stages_of(dvc, "wholebody-hand")[0]
    assert first == again and first["name"].startswith("dvc repro 2")
    assert other["identity"] != first["identity"] and other["name"] == "wholebody-hand"


def test_a_stage_without_dvc_belongs_to_no_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert current_execution() is None

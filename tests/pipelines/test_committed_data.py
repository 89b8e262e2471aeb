"""The data that this machine generates are those of the committed run, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.datasets.prepare import prepare
from pipelines.layout import PARAMS, ROOT
from pipelines.params import load_params
from pipelines.reproduction.verify import dvc_hash
from pipelines.running.process import LOCAL
from tcformer.tasks import ALL_TASKS

LARGE = ("wholebody", "mesh")  # a minute


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in LARGE else [])
        for name in ALL_TASKS
        if name != "keypoints"  # no committed run trains those
    ],
)
def test_the_sample_recipe_generates_what_dvc_lock_names(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCAL, "1")
    stage = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"][f"prepare@{task}"]
    [committed] = [out["md5"] for out in stage["outs"] if out["path"] == f"data/sample/{task}"]
    prepare(task, load_params(PARAMS).model_copy(update={"recipe": "sample"}), tmp_path / task)
    assert dvc_hash(tmp_path / task) == committed

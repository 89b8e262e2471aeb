"""Folders that cannot be written and full disks are reported before a training starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.adapters.storage import Store
from pipelines.driver import run as driver
from pipelines.driver.preflight import bytes_needed, require_writable
from pipelines.params import Params
from tcformer.errors import UserError
from tests.small import parameters


def test_a_folder_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "one", "outputs")
    assert list((tmp_path / "new" / "one").iterdir()) == []


@pytest.mark.parametrize("below", ["", "one/two"])
def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()  # also root cannot write in it
    with pytest.raises(UserError, match=r"file.*: outputs cannot be written there \(.+\): expected"):
        require_writable(tmp_path / "file" / below, "outputs")


def test_a_full_disk_is_reported_with_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000))
    store = Store(str(tmp_path))
    store.require_space(bytes_needed(700_000), "checkpoints")
    with pytest.raises(UserError, match=r"checkpoints: it needs 68000000 bytes, and the disk has 50000000 bytes free"):
        store.require_space(bytes_needed(1_000_000), "checkpoints")


def test_a_training_whose_outputs_cannot_be_written_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: Params = parameters(tmp_path)
    monkeypatch.setattr(driver, "_recorded", lambda *arguments: pytest.fail("it started"))
    (tmp_path / "file").touch()
    plan = SimpleNamespace(stage="finetune@face", key="face-1")
    with pytest.raises(UserError, match="the outputs of finetune@face cannot be written there"):
        driver.run(plan, params, tmp_path / "file" / "out")  # type: ignore[arg-type]

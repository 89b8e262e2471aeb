from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import first_epoch, measure


def test_the_first_epoch_is_timed_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["first_epoch", "--images", "32", "--repeats", "1"])
    first_epoch.main()
    (path,) = (tmp_path / "results").iterdir()
    disk, storage, fetching = list(csv.DictReader(path.open()))
    assert float(disk["ratio"]) == 1
    assert float(storage["s"]) > float(fetching["s"]) > 0

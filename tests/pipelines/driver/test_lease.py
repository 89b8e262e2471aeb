"""One training at a time in a folder and in a storage; who holds it is named, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.adapters.storage import Store
from pipelines.driver import lease
from pipelines.driver.lease import Sign, only_one, only_one_in_storage
from tcformer.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT_SECONDS": 0.05, "DEAD_SECONDS": 0.5, "SETTLE_SECONDS": 0.05}.items():
        monkeypatch.setattr(lease, name, seconds)


def holder_in(root: Path) -> Path:
    return root / "locks" / "face" / "holder.json"


def test_a_second_holder_of_a_lock_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.lock"
    with only_one(path, "this training"):
        named = rf"^this training is running already \(process {os.getpid()} on "
        with pytest.raises(UserError, match=named), only_one(path, "this training"):
            pass
    with only_one(path, "this training"):
        pass


def test_a_lock_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), only_one(tmp_path / "file" / "a.lock", "this training"):
        pass


def test_a_second_clone_on_one_storage_is_refused_by_name(tmp_path: Path) -> None:
    with only_one_in_storage(str(tmp_path), "face"):
        named = rf"running already in .*locks \(process {os.getpid()} on "
        with pytest.raises(UserError, match=named), only_one_in_storage(str(tmp_path), "face"):
            pass
        assert holder_in(tmp_path).is_file()
        with only_one_in_storage(str(tmp_path), "another"):
            pass
    assert not holder_in(tmp_path).exists()
    with only_one_in_storage(None, "face"):
        pass


def test_a_killed_process_of_this_machine_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, sys; from pipelines.adapters.storage import Store; from pipelines.driver.lease import Sign\n"
        "Sign(Store(sys.argv[1]), 'face').take(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "locks")], check=False)
    assert json.loads(holder_in(tmp_path).read_text())["pid"] != os.getpid()
    monkeypatch.setattr(Sign, "_refuse_if_it_counts", lambda self, before: pytest.fail("it waited"))
    with only_one_in_storage(str(tmp_path), "face"):
        pass


def test_beats_wait_for_no_storage_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient: list[bool] = []
    read = Sign._read
    monkeypatch.setattr(Sign, "_read", lambda self: (patient.append(self._store.patient), read(self))[1])
    with only_one_in_storage(str(tmp_path), "face"):
        assert patient == [True, True]
    assert patient[2:] and not any(patient[2:])


def test_a_machine_that_is_gone_holds_nothing_after_a_while(tmp_path: Path) -> None:
    path = holder_in(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"id": "1", "count": 7, "process": "process 3 on far", "machine": "far", "pid": 3}))
    with only_one_in_storage(str(tmp_path), "face"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_damaged_sign_is_none(tmp_path: Path) -> None:
    for text in ("", "[1]", '{"id": "1"}', "7"):
        path = holder_in(tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        with only_one_in_storage(str(tmp_path), "face"):
            pass


def test_who_loses_the_sign_is_asked_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a machine slept: another one has taken the training meanwhile."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        with only_one_in_storage(str(tmp_path), "face"):
            other = Sign(Store(str(tmp_path / "locks")), "face")
            other._write()
            for _ in range(100):
                if asked:
                    break
                signal.sigtimedwait([], 0.05)
        assert asked == [signal.SIGTERM] and "running already" in capsys.readouterr().err
        assert json.loads(holder_in(tmp_path).read_text())["id"] == other._id  # the loser leaves it
    finally:
        signal.signal(signal.SIGTERM, before)

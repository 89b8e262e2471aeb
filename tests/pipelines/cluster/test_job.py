"""What runs on the cluster: the checkout, the command's environment, its status, what the next job finds."""

from __future__ import annotations

import json
import signal
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.adapters.jobs import archive_name
from pipelines.cluster import job
from pipelines.cluster.job import Notes, run_order, update_checkout
from pipelines.cluster.package import Order, hashes


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/HEAD").write_text("ref")
    (folder / "code.py").write_text("print('sent')")
    return folder


def order_of(package: Path, *command: str, identity: str = "job-1") -> Order:
    files = hashes([path.name for path in package.iterdir() if path.is_file()], package)
    return Order(identity, "checkout", list(command), files, [], 10**6, doctor=False)


def run(package: Path, *command: str, identity: str = "job-1") -> int:
    return run_order(
        order_of(package, *command, identity=identity), package, package.parent / "p", package.parent / "r"
    )


def packed(package: Path, identity: str) -> dict[str, object]:
    with tarfile.open(package.parent / "r" / archive_name(identity)) as archive:
        member = archive.extractfile("manifest.json")
        assert member
        found: dict[str, object] = json.loads(member.read())
        return found


def python(code: str) -> tuple[str, ...]:
    return ("python", "-c", code)


def test_the_command_runs_in_the_checkout_with_this_python(package: Path) -> None:
    code = "import sys, os, code as c; open('out', 'w').write(sys.executable + ' ' + os.environ['PYTHONPATH'])"
    assert run(package, *python(code)) == 0
    checkout = package.parent / "p" / "checkout"
    interpreter, path = (checkout / "out").read_text().split(" ", 1)
    assert Path(interpreter).parent == Path(sys.executable).parent
    assert path.split(":")[0] == str(checkout)
    assert set(packed(package, "job-1")["files"]) == {"out"}  # type: ignore[call-overload]


def test_the_exit_status_is_the_commands_and_results_come_back_all_the_same(package: Path) -> None:
    assert run(package, *python("open('out', 'w').close(); raise SystemExit(3)")) == 3
    assert set(packed(package, "job-1")["files"]) == {"out"}  # type: ignore[call-overload]
    assert run(package, "no-such-program") == 127


def test_the_next_job_finds_what_the_last_one_left_and_not_what_was_deleted(package: Path) -> None:
    (package / "old.py").touch()
    assert run(package, *python("open('checkpoint', 'w').close()")) == 0
    (package / "old.py").unlink()
    (package / "code.py").write_text("print('changed')")
    check = "import os, sys; sys.exit(os.path.exists('old.py') or not os.path.exists('checkpoint'))"
    assert run(package, *python(check), identity="job-2") == 0
    assert (package.parent / "p/checkout/code.py").read_text() == "print('changed')"
    assert not (package.parent / "r" / archive_name("job-1")).exists(), "one archive is kept for a checkout"
    assert packed(package, "job-2")["files"] == {}


def test_a_file_that_an_earlier_job_returned_is_known(package: Path) -> None:
    run(package, *python("open('out', 'w').write('1')"))
    run(package, *python("open('out', 'w').write('2')"), identity="job-2")
    known = packed(package, "job-2")["known"]
    assert known == {"out": ["6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"]}  # of "1"


def test_equal_files_keep_their_times(package: Path, tmp_path: Path) -> None:
    update_checkout(package, tmp_path / "c", ["code.py"], [])
    before = (tmp_path / "c/code.py").stat()
    update_checkout(package, tmp_path / "c", ["code.py"], ["code.py"])
    assert (tmp_path / "c/code.py").stat() == before or (tmp_path / "c/code.py").stat().st_ino == before.st_ino


def test_a_cluster_with_a_problem_runs_nothing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(job, "run", lambda command, *rest: commands.append(command) or 1)
    order = order_of(package, "dvc", "repro")
    asked = replace(order, doctor=True)
    assert run_order(asked, package, package.parent / "p", package.parent / "r") == 1
    assert commands == [[sys.executable, "-m", "stages.cli", "doctor"]]


def test_a_stopped_job_waits_for_its_command_and_packs(package: Path) -> None:
    """Ray sends SIGINT to all processes of a job."""
    ready = package.parent / "p/checkout/ready"
    code = (
        "import signal, time, sys\n"
        "def stop(*_):\n    time.sleep(0.3); open('checkpoint', 'w').close(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop); open('ready', 'w').close(); time.sleep(30)"
    )

    def stop_all() -> None:
        while not ready.exists():
            time.sleep(0.02)
        for process in (*psutil.Process().children(), psutil.Process()):
            process.send_signal(signal.SIGINT)

    threading.Thread(target=stop_all).start()
    assert run(package, *python(code)) == 130
    assert "checkpoint" in packed(package, "job-1")["files"]  # type: ignore[operator]


def test_a_job_that_is_stopped_before_its_command_starts_does_not_start_it(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signal came while the checkout was written: no process had it that could take a checkpoint."""
    update = job.update_checkout

    def interrupted(*arguments: Any) -> None:
        update(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(job, "update_checkout", interrupted)
    assert run(package, *python("open('out', 'w').close()")) == 130
    assert packed(package, "job-1")["files"] == {}
    asked = replace(order_of(package, "dvc", "repro"), doctor=True)
    assert run_order(asked, package, package.parent / "p", package.parent / "r") == 130
    assert "solve the problems" not in capsys.readouterr().out


def test_notes_keep_the_last_versions(tmp_path: Path) -> None:
    notes = Notes()
    for version in range(20):
        notes.learn({"a": str(version)})
    notes.learn({"a": "15"})
    assert notes.known["a"] == ["12", "13", "14", "16", "17", "18", "19", "15"]
    notes.write(tmp_path / "notes.json")
    assert Notes.read(tmp_path / "notes.json") == notes

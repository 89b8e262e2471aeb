"""Progress is a bar on a terminal and plain lines elsewhere."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.datasets import byte_counts
from pipelines.datasets.byte_counts import ByteCounter, show_byte_counts
from pipelines.running import progress
from pipelines.running.progress import BYTES, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def test_a_log_gets_a_line_every_tenth(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("pretrain", total=40, unit="step") as bar:
        for step in range(40):
            clock[0] += 2
            bar.note(f"loss {step}")
            bar.update(1)
    printed, errors = capsys.readouterr()
    lines = printed.splitlines()
    assert errors == "" and "\r" not in printed and len(lines) == 10
    assert lines[0] == "pretrain: step 4/40, loss 3, 01:12 left"
    assert lines[-1] == "pretrain: step 40/40, loss 39, 00:00 left"


def test_large_updates_and_a_resumed_run(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("finetune", total=100, unit="step", done=37) as bar:
        clock[0] += 3
        bar.update(2)  # 39: no new tenth
        bar.update(31)  # 70: one line for several tenths
        assert bar.done == 70 and bar.total == 100
    assert capsys.readouterr().out == "finetune: step 70/100, 00:02 left\n", "33 steps took 3 s"


def test_bytes_have_readable_units(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("unpacking", total=4_000_000_000, unit=BYTES) as bar:
        clock[0] += 1
        bar.update(2_000_000_000)
    assert capsys.readouterr().out == "unpacking: 2.00GB of 4.00GB, 00:01 left\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("pretrain", total=4, unit="step", done=1) as bar:
        bar.note("loss 0.5")
        time.sleep(0.15)  # bars are drawn ten times a second at most
        bar.update(2)
        bar.message("a checkpoint was set aside")
        bar.update(1)
    shown = terminal.getvalue()
    assert "pretrain:  25%" in shown and "1/4" in shown and "4/4" in shown and "loss 0.5" in shown and "\r" in shown
    assert capsys.readouterr().out == "pretrain: a checkpoint was set aside\n", "messages are lines of their own"


def test_messages_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("pretrain", total=4)
    bar.message("resumed")
    bar.close()
    assert capsys.readouterr().out == "pretrain: resumed\n"


def test_without_a_title_nothing_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("", total=3) as bar:
        bar.message("hidden")
        bar.update(3)
    assert bar.done == 3 and terminal.getvalue() == "" and capsys.readouterr().out == ""


def test_no_work_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("nothing", total=0) as bar:
        bar.update(0)
    assert capsys.readouterr().out == ""


def test_bytes_of_several_processes_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_counts, "_READ_SECONDS", 0.1)
    counts = tmp_path / "counts"
    counts.mkdir()
    (counts / "older").write_text("1000000000")  # of an earlier run
    with show_byte_counts("unpacking", counts, 4_000_000_000):
        ByteCounter(counts / "first")(1_000_000_000)
        ByteCounter(counts / "second")(1_000_000_000)
        (counts / "third").touch()  # it is being written
        time.sleep(1)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("unpacking: 2.00GB of 4.00GB, 00:0") and last == "unpacking: 4.00GB of 4.00GB, 00:00 left"


def test_progress_ends_where_an_error_stops_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), show_byte_counts("unpacking", tmp_path / "counts", 4_000_000_000):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "", "the work is not reported as done"

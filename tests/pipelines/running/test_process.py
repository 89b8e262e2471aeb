"""How a stage ends: its reader, its parent or a connection has gone, or a signal came."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest


@pytest.mark.parametrize("letters", [10, 100_000])
def test_a_reader_that_has_ended_is_no_error(letters: int) -> None:
    """As in `python -m stages.experiments list | head`: with a text in the buffer, and with one larger than it."""
    code = f"from pipelines.running.process import stage_main; stage_main(lambda: print('x' * {letters}))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_connection_that_breaks_is_an_error() -> None:
    code = (
        "from pipelines.running.process import stage_main\n"
        "def main():\n    raise BrokenPipeError('the store')\n"
        "stage_main(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 1 and "BrokenPipeError: the store" in done.stderr


@pytest.mark.parametrize(
    ("reason", "status"), [("Interrupted(15)", 143), ("KeyboardInterrupt()", 130), ("OSError()", 1)]
)
def test_a_signal_inside_c_code_stops_a_stage_without_a_traceback(reason: str, status: int) -> None:
    code = (
        "from pipelines.running.process import Interrupted, stage_main\n"
        f"def main():\n    raise SystemError('returned a result with an exception set') from {reason}\n"
        "stage_main(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == status and ("Traceback" in done.stderr) == (status == 1), done.stderr
    assert status == 1 or done.stderr == "stopped\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux sends the signal")
def test_a_stage_whose_parent_was_killed_stops_by_itself(tmp_path: Path) -> None:
    """DVC, killed: its stage would write on, beside that of the next `dvc repro`."""
    stage = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from pipelines.running.process import stage_main\n"
        "def main():\n"
        f"    Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "stage_main(main)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stage!r}])"
    with (tmp_path / "printed").open("w") as printed:
        parent = subprocess.Popen([sys.executable, "-c", code], stderr=printed)
        wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        parent.kill()
        parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert (tmp_path / "printed").read_text() == "stopped\n"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)

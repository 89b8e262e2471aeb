"""A stage whose output nobody reads any more ends silently."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("letters", [10, 100_000])
def test_a_reader_that_has_ended_is_no_error(letters: int) -> None:
    """As in `python -m stages.experiments list | head`: with a text in the buffer, and with one larger than it."""
    code = f"from pipelines.process import stage_main; stage_main(lambda: print('x' * {letters}))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_connection_that_breaks_is_an_error() -> None:
    code = (
        "from pipelines.process import stage_main\n"
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
        "from pipelines.process import Interrupted, stage_main\n"
        f"def main():\n    raise SystemError('returned a result with an exception set') from {reason}\n"
        "stage_main(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == status and ("Traceback" in done.stderr) == (status == 1), done.stderr
    assert status == 1 or done.stderr == "stopped\n"

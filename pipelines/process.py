"""How a stage behaves as a process: it dies with its parent, and a user's mistake ends in one sentence."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tcformer.errors import UserError

PR_SET_PDEATHSIG = 1
LOCAL = "TCFORMER_LOCAL"  # "1": a stage does everything in its own process, without Ray


LOCAL_HELP = "work in this process, without Ray: for a debugger"  # of the option --local


def work_locally() -> None:
    """Make this stage do everything in its own process: what the option --local does."""
    os.environ[LOCAL] = "1"


def runs_locally() -> bool:
    """Whether this stage does everything in its own process, so that a debugger can step through it."""
    return os.environ.get(LOCAL) == "1"


def die_with_parent() -> None:
    """Have Linux send SIGTERM when the parent (DVC, a shell) dies: an orphan would go on writing the outputs that
    the next `dvc repro` writes too."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _output_is_closed() -> bool:
    """Whether nobody reads the standard output any more, as after `| head`.

    A large text can fail without staying in the buffer, so flushing it again would not tell: a new line is written.
    """
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def stage_main(main: Callable[[], int | None]) -> None:
    """Run `main` and exit: status 2 and one message for a UserError, 130 after Ctrl-C, 143 after SIGTERM.

    If the reader of the output has ended, as in `| head`, the exit status is 141, and there is no message.
    """
    die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        if not _output_is_closed():  # a connection of another kind broke
            raise
        # The interpreter flushes the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)

"""How a stage behaves as a process: it dies with its parent, and a user's mistake ends in one sentence."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Interrupted(BaseException):
    """The process was asked to end by a signal: Ctrl-C, SIGTERM, the notice of a spot instance.

    It is no Exception, so that nothing but `stage_main` handles it.

    Attributes:
        status: the exit status that says so, 130 or 143.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends what runs at once."""
    raise Interrupted(number)


class Interrupts:
    """The first signal that asked this process to end, while a training takes a checkpoint. A second one ends it."""

    def __init__(self) -> None:
        self.first: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.first is not None:
            raise Interrupted(number)
        self.first = number


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Restore the present handlers of Ctrl-C and SIGTERM after the body."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Note signals while the body runs instead of ending at once. Only the main thread may do this."""
    interrupts = Interrupts()
    with signal_handlers_kept():
        for number in SIGNALS:
            signal.signal(number, interrupts.note)
        yield interrupts


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
    for number in SIGNALS:
        signal.signal(number, interrupt)
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
    except (Interrupted, KeyboardInterrupt) as stopped:
        status = _stopped(stopped)
    except SystemError as error:  # what Python makes of an exception that a signal raises in Ray's C code
        if not isinstance(error.__cause__, (Interrupted, KeyboardInterrupt)):
            raise
        status = _stopped(error.__cause__)
    sys.exit(status)


def _stopped(reason: Interrupted | KeyboardInterrupt) -> int:
    """Say that a signal stopped the stage; returns its exit status."""
    print("stopped", file=sys.stderr)
    return reason.status if isinstance(reason, Interrupted) else 128 + signal.SIGINT

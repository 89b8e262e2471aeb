"""How the person at the terminal follows long work: unpacking, generating and evaluating data, training."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from tcformer.errors import printable

BYTES = "B"


def say(text: str, *, as_error: bool = False) -> None:
    """Print lines whose words may come from files or from other machines: escape codes for the terminal become visible.

    Args:
        text: the lines.
        as_error: print to the standard error.
    """
    print(printable(text), file=sys.stderr if as_error else sys.stdout, flush=True)


class Progress:
    """A bar with speed and remaining time on a terminal; elsewhere, as in a log file, a line every tenth of the way.

    Args:
        title: begins every line; if it is empty, nothing is shown.
        total: number of units of the whole work.
        unit: what is counted, in the singular, for instance "step"; `BYTES` is shown in kB, MB or GB.
        done: units that were done before, for instance the steps of a training that resumes.
    """

    def __init__(self, title: str, total: int, unit: str = "item", done: int = 0) -> None:
        self.total = total
        self.done = done
        self._title = title
        self._unit = unit
        self._note = ""
        self._start, self._start_time = done, time.monotonic()
        self._tenths = self._tenths_done()
        on_terminal = bool(title) and sys.stderr.isatty()
        self._prints_lines = bool(title) and not on_terminal
        self._bar = tqdm(
            total=total, initial=done, unit=unit, unit_scale=unit == BYTES, desc=title, disable=not on_terminal
        )

    def update(self, count: int) -> None:
        """Count `count` further units."""
        self.done += count
        self._bar.update(count)
        if self._prints_lines and self._tenths_done() > self._tenths:
            self._tenths = self._tenths_done()
            note = f", {self._note}" if self._note else ""
            print(f"{self._title}: {self._amount()}{note}, {self._remaining()} left", flush=True)

    def note(self, text: str) -> None:
        """Show `text` after the numbers from the next update on, for instance the loss."""
        self._note = text
        self._bar.set_postfix_str(text, refresh=False)

    def message(self, text: str) -> None:
        """Print a line; a bar stays below it."""
        if self._title:
            with self._bar.external_write_mode():
                say(f"{self._title}: {text}")

    def close(self) -> None:
        """End the display; a bar stays as it is."""
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _tenths_done(self) -> int:
        return 10 * self.done // max(1, self.total)

    def _amount(self) -> str:
        if self._unit == BYTES:
            return f"{tqdm.format_sizeof(self.done, BYTES)} of {tqdm.format_sizeof(self.total, BYTES)}"
        return f"{self._unit} {self.done}/{self.total}"

    def _remaining(self) -> str:
        seconds = time.monotonic() - self._start_time
        each = seconds / max(1, self.done - self._start)
        return str(tqdm.format_interval(each * (self.total - self.done)))

"""What the person at the terminal sees of a training."""

import sys
import time
from typing import Any

from tqdm import tqdm

from pipelines.training.events import Event, Note, Row, Started


class Progress:
    """A bar with loss, speed and remaining time on a terminal; a line every tenth of the way elsewhere.

    Args:
        title: of the stage; it begins every line.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.perf_counter()
        self._bar: Any = None
        self._steps = 0
        self._tenth = -1

    def show(self, event: Event) -> None:
        """Take an event of the training loop."""
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Note):
            print(f"{self._title}: {event.text}", flush=True)
        elif isinstance(event, Row) and "loss" in event.values:
            self._row(event)
        elif isinstance(event, Row):
            scores = ", ".join(f"{name} {value:.4g}" for name, value in event.values.items())
            tqdm.write(f"{self._title}: step {event.step}/{self._steps}: {scores}")

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _start(self, event: Started) -> None:
        self.close()
        self._steps = event.steps
        resumed = f", resumed after step {event.step}" if event.step else ""
        workers = f"{event.workers} {event.device} worker{'s' if event.workers > 1 else ''}"
        share = f"{event.accumulation} x {event.micro_batch} samples each"
        ready = f"ready after {time.perf_counter() - self._began:.0f} s"
        print(
            f"{self._title}: {event.samples} samples, {event.steps} steps on {workers} ({share}){resumed}, {ready}",
            flush=True,
        )
        self._bar = tqdm(
            total=event.steps, initial=event.step, unit="step", desc=self._title, disable=not sys.stderr.isatty()
        )

    def _row(self, event: Row) -> None:
        shown = f"loss {event.values['loss']:.4g}, {event.momentary['images_per_second']:.0f} images/s"
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(event.step - self._bar.n)
        tenth = 10 * event.step // self._steps
        if self._bar.disable and tenth > self._tenth:
            self._tenth = tenth
            print(f"{self._title}: step {event.step}/{self._steps}, {shown}", flush=True)

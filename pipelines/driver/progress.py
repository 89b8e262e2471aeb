"""What the person at the terminal sees of a training."""

import time

from pipelines.running.progress import Progress, say
from pipelines.training.events import Event, Note, Row, Started


class TrainingProgress:
    """Shows the events of a training: a bar on a terminal, lines elsewhere.

    Args:
        title: of the stage; it begins every line.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._start_time = time.monotonic()
        self._progress: Progress | None = None

    def show(self, event: Event) -> None:
        """Take an event of the training loop."""
        if isinstance(event, Started):
            self._begin(event)
        elif isinstance(event, Note):
            self._print(event.text)
        elif isinstance(event, Row) and self._progress:
            if "loss" in event.values:
                speed = event.momentary["images_per_second"]
                self._progress.note(f"loss {event.values['loss']:.4g}, {speed:.0f} images/s")
                self._progress.update(event.step - self._progress.done)
            else:
                scores = ", ".join(f"{name} {value:.4g}" for name, value in event.values.items())
                self._print(f"step {event.step}/{self._progress.total}: {scores}")

    def close(self) -> None:
        """End the display."""
        if self._progress:
            self._progress.close()

    def _print(self, text: str) -> None:
        if self._progress:
            self._progress.message(text)
        else:
            say(f"{self._title}: {text}")

    def _begin(self, event: Started) -> None:
        self.close()
        resumed = f", resumed after step {event.step}" if event.step else ""
        workers = f"{event.workers} {event.device} worker{'s' if event.workers > 1 else ''}"
        share = f"{event.accumulation} x {event.micro_batch} samples each"
        ready = f"ready after {time.monotonic() - self._start_time:.0f} s"
        print(
            f"{self._title}: {event.samples} samples, {event.steps} steps on {workers} ({share}){resumed}, {ready}",
            flush=True,
        )
        self._progress = Progress(self._title, event.steps, unit="step", done=event.step)

"""What the person at the terminal sees of a training."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar with loss, speed and remaining time on a terminal; a line every tenth of the way elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.perf_counter()
        self._bar: Any = None
        self._steps = 0
        self._told = -1

    def show(self, event: dict[str, Any]) -> None:
        """Take an event of the training loop."""
        kind = event["kind"]
        if kind == "start":
            self._start(event)
        elif kind == "note":
            print(f"{self._title}: {event['text']}", flush=True)
        elif kind == "row" and "loss" in event:
            self._row(event)
        elif kind == "row":
            scores = ", ".join(f"{name} {value:.4g}" for name, value in event.items() if name.startswith("val_"))
            tqdm.write(f"{self._title}: step {event['step']}/{self._steps}: {scores}")

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _start(self, event: dict[str, Any]) -> None:
        self.close()
        self._steps = event["steps"]
        resumed = f", resumed after step {event['step']}" if event["step"] else ""
        workers = f"{event['workers']} {event['device']} workers"
        share = f"{event['accumulation']} x {event['micro_batch']} samples each"
        ready = f"ready after {time.perf_counter() - self._began:.0f} s"
        print(
            f"{self._title}: {event['samples']} samples, {event['steps']} steps on {workers} ({share})"
            f"{resumed}, {ready}",
            flush=True,
        )
        self._bar = tqdm(
            total=event["steps"], initial=event["step"], unit="step", desc=self._title, disable=not sys.stderr.isatty()
        )

    def _row(self, event: dict[str, Any]) -> None:
        speed = event["images_per_second"]
        self._bar.set_postfix_str(f"loss {event['loss']:.4g}, {speed:.0f} images/s", refresh=False)
        self._bar.update(event["step"] - self._bar.n)
        tenth = 10 * event["step"] // self._steps
        if self._bar.disable and tenth > self._told:
            self._told = tenth
            print(
                f"{self._title}: step {event['step']}/{self._steps}, loss {event['loss']:.4g}, {speed:.0f} images/s",
                flush=True,
            )

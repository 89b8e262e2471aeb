"""Progress of several processes as one: each counts its bytes in a file, which the process with the display reads."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.running.progress import BYTES, Progress

_WRITE_SECONDS = 0.5
_READ_SECONDS = 1.0


class ByteCounter:
    """Counts processed bytes and writes their number to a file, twice a second at most."""

    def __init__(self, path: Path) -> None:
        self._path, self._count, self._written_at = path, 0, 0.0

    def __call__(self, count: int) -> None:
        """`count` further bytes are processed."""
        self._count += count
        if time.monotonic() > self._written_at + _WRITE_SECONDS:
            self._written_at = time.monotonic()
            self._path.write_text(str(self._count))


@contextmanager
def show_byte_counts(title: str, folder: Path, total: int) -> Iterator[None]:
    """Show the progress of the counters in `folder`, which is emptied first, while the body runs.

    Args:
        title: begins every line.
        folder: where each `ByteCounter` has its file.
        total: bytes of the whole work.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ended = threading.Event()
    with Progress(title, total, BYTES) as progress:

        def follow() -> None:
            while not ended.wait(_READ_SECONDS):
                progress.update(min(total, sum(_read(path) for path in folder.iterdir())) - progress.done)

        follower = threading.Thread(target=follow, name="byte counts", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
        progress.update(total - progress.done)


def _read(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):  # it is being written
        return 0

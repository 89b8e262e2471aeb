"""Writes checkpoints in a thread, so that a training step never waits for the store."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import torch
from safetensors.torch import save
from torch import Tensor

from pipelines.adapters.storage import DiskFull, Store
from pipelines.training import checkpoint
from pipelines.training.events import Event, Note
from tcformer.errors import UserError

RETRY_SECONDS = 300.0  # for which a write is repeated if the store does not answer
PAUSE_SECONDS = 1.0  # before the first repetition; the next pauses are twice as long each, up to the longest one
LONGEST_PAUSE = 15.0
CLOSE_SECONDS = 30.0  # for the write in flight when a training ends with an exception


@dataclass
class Snapshot:
    """The files of a checkpoint in memory. The training may go on: it changes nothing of them.

    Attributes:
        tensors: name of a safetensors file -> its tensors on the CPU and its metadata.
        others: name of another file -> its content.
    """

    tensors: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)

    def add(self, file: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        """Copy tensors, on any device, as the content of the safetensors file `file`."""
        copies = {name: copy_to_cpu(value) for name, value in tensors.items()}
        self.tensors[file] = (copies, metadata or {})

    @property
    def size(self) -> int:
        """Bytes of all files, without the names and shapes in them."""
        tensors = sum(value.nbytes for values, _ in self.tensors.values() for value in values.values())
        return tensors + sum(len(content) for content in self.others.values())

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents."""
        yield from self.others.items()
        for name, (tensors, metadata) in self.tensors.items():
            yield name, save(tensors, metadata or None)


def copy_to_cpu(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU."""
    return value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)


class CheckpointWriter:
    """Writes one snapshot after the other in a thread.

    Its methods are called by the thread of the training alone, which also hands out the events: a listener need not be
    safe for threads, and what it raises ends the training. The thread communicates with no other worker, because the
    training may be in a collective at the same time.

    While the store does not answer, a write is repeated for up to `RETRY_SECONDS`, and the training goes on until its
    next checkpoint. A full disk is an error at once.

    Args:
        store: of the training.
        send: takes the events.
    """

    def __init__(self, store: Store, send: Callable[[Event], None]) -> None:
        self._store, self._send = store, send
        self._thread: threading.Thread | None = None
        self._abandoned = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """After an exception, let a write in flight end, but repeat it no more. After a signal wait for nothing."""
        if kind is not None and issubclass(kind, Exception):
            self.settle()

    def start(self, name: str, snapshot: Snapshot, done: Event | None = None) -> None:
        """Begin to write a checkpoint, once the one before is written.

        Args:
            name: of its folder.
            snapshot: its files.
            done: sent when it is complete.

        Raises:
            UserError: the one before could not be written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(name, snapshot, done), name="checkpoint", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Hand out what happened since the last call.

        Raises:
            UserError: a checkpoint could not be written.
        """
        while not self._events.empty():
            self._send(self._events.get())
        error, self._error = self._error, None
        if error:
            raise error

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            UserError: it could not be written.
        """
        while self._thread:
            self._thread.join(0.2)
            if not self._thread.is_alive():
                self._thread = None
            self.poll()

    def settle(self) -> None:
        """Let a write in flight end, whether it succeeds or not, so that the store can be read."""
        if self._thread:
            self._abandoned.set()
            self._thread.join(CLOSE_SECONDS)

    def _write(self, name: str, snapshot: Snapshot, done: Event | None) -> None:
        try:
            self._write_patiently(name, snapshot)
            if done:
                self._events.put(done)
        except BaseException as error:
            self._error = error

    def _write_patiently(self, name: str, snapshot: Snapshot) -> None:
        started, pause, attempts = time.monotonic(), PAUSE_SECONDS, 0
        while True:
            attempts += 1
            try:
                checkpoint.save(self._store, name, snapshot.files(), snapshot.size)
                checkpoint.tidy(self._store, name)
                break
            except DiskFull:
                raise
            except (UserError, OSError) as error:
                reason = str(error)
                if self._abandoned.is_set() or time.monotonic() - started > RETRY_SECONDS:
                    raise UserError(
                        f"the checkpoint {name} could not be written for {time.monotonic() - started:.0f} s: {reason}; "
                        "earlier checkpoints are unchanged, and the same command resumes from the last one"
                    ) from error
            if attempts == 1:
                self._events.put(
                    Note(
                        f"the checkpoint {name} cannot be written now ({reason}): trying again for up to "
                        f"{RETRY_SECONDS:.0f} s, while the training goes on"
                    )
                )
            self._abandoned.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if attempts > 1:
            self._events.put(Note(f"the checkpoint {name} is written, at attempt {attempts}"))

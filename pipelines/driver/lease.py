"""One training at a time in one folder: locks of this machine, and a sign in a storage that several machines share.

A storage such as S3 has no locks. The process that trains there writes its name and counts on; whoever else wants to
train sees whether it still counts. Clocks of machines are never compared.
"""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.adapters.storage import Store, below
from pipelines.running.progress import say
from tcformer.errors import UserError

BEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0  # without a beat: the holder's machine is gone
SETTLE_SECONDS = 1.0  # until one of two processes that write at once sees the other
_HOLDER = "holder.json"


def this_process() -> str:
    """Names this process for people: "process 12 on host"."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock of this machine while the body runs; the system releases it if the process dies.

    Args:
        path: the lock.
        what: is locked, for the message: "this training".

    Raises:
        UserError: another process holds it; the message names that process. Or the lock cannot be written.
    """
    owner, lock = path.with_suffix(".owner"), FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        owner.write_text(this_process(), encoding="utf-8")
    except Timeout:
        holder = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise UserError(f"{what} is running already ({holder}): wait for it, or stop that process") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): expected a folder that can be") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def only_one_in_storage(storage: str | None, key: str) -> Iterator[None]:
    """Hold a training in a storage that other machines share while the body runs.

    If another process takes it all the same, because this one did not count for `DEAD_SECONDS`, this process gets
    SIGTERM.

    Args:
        storage: see `pipelines.adapters.storage.Store`; None: nothing is shared, and nothing is done.
        key: of the training.

    Raises:
        UserError: another process trains the same there; the message names it.
    """
    if storage is None:
        yield
        return
    store = Store(below(storage, "locks"))
    sign = Sign(store, key)
    sign.take()
    store.patient = False  # a beat that fails is followed by the next one, and the end of a training waits for none
    stop = threading.Event()
    beats = threading.Thread(target=sign.keep, args=(stop,), name="lease", daemon=True)
    beats.start()
    try:
        yield
    finally:
        stop.set()
        beats.join()
        sign.release()


class Sign:
    """The file in the storage that says who trains.

    Args:
        store: of the signs.
        key: of the training.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key, self._id, self._count = store, key, uuid.uuid4().hex, 0

    def take(self) -> None:
        """Write this process as the holder. Raises UserError if another one holds it and lives."""
        before = self._read()
        if before and not _has_died(before):
            self._refuse_if_it_counts(before)
        self._write()
        time.sleep(SETTLE_SECONDS)
        now = self._read()
        if now and now["id"] != self._id:
            raise self._held(now)

    def keep(self, stop: threading.Event) -> None:
        """Count on until `stop`; the storage may fail for a while."""
        while not stop.wait(BEAT_SECONDS):
            with suppress(OSError, UserError):
                holder = self._read()
                if holder and holder["id"] != self._id:
                    say(f"{self._held(holder)}", as_error=True)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._write()

    def release(self) -> None:
        """Remove the file, if it is ours."""
        with suppress(OSError, UserError):
            holder = self._read()
            if holder and holder["id"] == self._id:
                self._store.delete(self._key)

    def _read(self) -> dict[str, str] | None:
        text = self._store.read(f"{self._key}/{_HOLDER}")
        try:
            found = json.loads(text or b"null")
            return {name: str(found[name]) for name in ("id", "count", "process", "machine", "pid")} if found else None
        except (ValueError, KeyError, TypeError):  # not written by us
            return None

    def _write(self) -> None:
        self._count += 1
        content = {
            "id": self._id,
            "count": self._count,
            "process": this_process(),
            "machine": _machine(),
            "pid": os.getpid(),
        }
        self._store.write(f"{self._key}/{_HOLDER}", json.dumps(content).encode())

    def _refuse_if_it_counts(self, before: dict[str, str]) -> None:
        say(f"{before['process']} trains this in {self._store.shown}, or did: waiting for a sign of it")
        deadline = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(1.0, BEAT_SECONDS / 5))
            now = self._read()
            if now is None:
                return
            if (now["id"], now["count"]) != (before["id"], before["count"]):
                raise self._held(now)

    def _held(self, holder: dict[str, str]) -> UserError:
        return UserError(
            f"this training is running already in {self._store.shown} ({holder['process']}): wait for it, or stop that "
            "process"
        )


def _machine() -> str:
    """Identifies a machine since its start, and the processes that see each other on it: containers have their own."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _has_died(holder: dict[str, str]) -> bool:
    """Whether the holder was a process of this machine that is gone."""
    if holder["machine"] != _machine() or not holder["pid"].isdecimal():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False

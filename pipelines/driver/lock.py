"""One process at a time trains a plan on this machine."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tcformer.errors import UserError


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a training for this process. Raises UserError that names the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    owner, lock = path.with_suffix(".owner"), FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise UserError(f"this training is running already ({holder}): wait for it, or stop that process") from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()

"""A dataset in the storage: tar files of bounded size ("shards") and an index of them, written once.

The files lie below `data/<SHA-256 of the dataset>/`. The index is written last: a dataset without one is not complete.
"""

import hashlib
import json
import re
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.adapters.storage import Store
from pipelines.running.progress import BYTES, Progress
from tcformer.errors import UserError

SHARD_BYTES = 1 << 28  # of files in a shard; a larger file has one of its own
THREADS = 4  # that write or read shards at the same time
_INDEX = "index.json"
_NAME = re.compile(r"shard-\d{5,}\.tar")
_DAMAGES = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what damaged JSON raises


@dataclass(frozen=True)
class Shard:
    """A tar file of the storage.

    Attributes:
        name: its key below the dataset's folder.
        size: its bytes.
        sha256: of these bytes.
        files: names below the data root and sizes of the files in it.
    """

    name: str
    size: int
    sha256: str
    files: tuple[tuple[str, int], ...]


def folder_of(sha256: str) -> str:
    """Key of the folder of a dataset."""
    return f"data/{sha256}"


def read_index(store: Store, sha256: str) -> tuple[Shard, ...] | None:
    """The shards of a dataset; None if it is not in the storage, or not completely.

    Args:
        store: the storage.
        sha256: of the dataset.

    Raises:
        UserError: the index is damaged.
    """
    key = f"{folder_of(sha256)}/{_INDEX}"
    text = store.read(key)
    try:
        return None if text is None else tuple(map(_shard_of, json.loads(text)["shards"]))
    except _DAMAGES as error:
        raise UserError(
            f"{store.shown}/{key}: the index is damaged ({error}): expected the shards of a dataset; delete the folder "
            "of this file, and run the stage again"
        ) from None


def _shard_of(fields: dict[str, Any]) -> Shard:
    if not _NAME.fullmatch(fields["name"]):  # it becomes a path on the machine that fetches it
        raise ValueError(f"{fields['name']!r:.60} is no name of a shard")
    files = tuple((str(name), int(size)) for name, size in fields["files"])
    return Shard(str(fields["name"]), int(fields["size"]), str(fields["sha256"]), files)


def store_dataset(
    store: Store, root: Path, sha256: str, names: Callable[[], Sequence[str]], title: str
) -> tuple[Shard, ...]:
    """Write a dataset to the storage, unless it is there; returns its shards.

    Files go from the disk to the storage directly: there is no second copy on this disk. After an interruption the same
    call continues with the shards that are missing.

    Args:
        store: the storage.
        root: folder of the dataset.
        sha256: of the dataset.
        names: returns the files' names below the root; it is called if the dataset is not in the storage.
        title: begins the line about progress.

    Raises:
        UserError: a file changes while it is read, or the storage cannot be written to.
    """
    stored = read_index(store, sha256)
    if stored is not None:
        return stored
    plans = _plan([(name, (root / name).stat().st_size) for name in sorted(names())])
    folder, lock = folder_of(sha256), threading.Lock()
    total = sum(size for files in plans for _, size in files)
    store.require_space(total, f"the dataset {root}")
    with Progress(title, total, BYTES) as progress:

        def write(number: int) -> Shard:
            files = plans[number]
            shard = _write_shard(store, folder, f"shard-{number:05d}.tar", root, files)
            with lock:
                progress.update(sum(size for _, size in files))
            return shard

        with ThreadPoolExecutor(THREADS, "store") as pool:
            shards = tuple(pool.map(write, range(len(plans))))
    index = {"sha256": sha256, "shards": [asdict(shard) for shard in shards]}
    store.write(f"{folder}/{_INDEX}", json.dumps(index).encode())
    return shards


def _plan(files: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Consecutive files in groups of at most `SHARD_BYTES` bytes."""
    groups: list[list[tuple[str, int]]] = []
    room = -1
    for name, size in files:
        if size > room or not groups:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append((name, size))
        room -= size
    return groups


def _write_shard(store: Store, folder: str, name: str, root: Path, files: Sequence[tuple[str, int]]) -> Shard:
    """Write a shard and, after it, a note of its content, by which a later attempt knows that it is complete."""
    note = f"{folder}/{name}.json"
    with suppress(*_DAMAGES):  # then it is written again, as one without a note
        text = store.read(note)
        known = None if text is None else _shard_of(json.loads(text))
        if known and (known.name, known.files) == (name, tuple(files)):
            return known
    found: list[tuple[int, str]] = []
    size = sum(size for _, size in files)
    store.produce(f"{folder}/{name}", partial(_write_tar, root, files, found), size)
    shard = Shard(name, *found[-1], tuple(files))
    store.write(note, json.dumps(asdict(shard)).encode())
    return shard


def _write_tar(root: Path, files: Sequence[tuple[str, int]], found: list[tuple[int, str]], stream: BinaryIO) -> None:
    """Write a tar of `files` to a stream, and append its size and SHA-256 to `found`.

    It has no times and no owners: the same files have the same bytes.
    """
    hashing: Any = _HashingStream(stream)
    with tarfile.open(fileobj=hashing, mode="w|") as tar:
        for name, size in files:
            header = tarfile.TarInfo(name)
            header.size = size
            with (root / name).open("rb") as source:
                try:
                    tar.addfile(header, source)
                except OSError as error:
                    if "unexpected end of data" not in str(error):
                        raise
                    raise _changed(root / name) from None
                if source.read(1):
                    raise _changed(root / name)
    found.append((hashing.size, hashing.sha256.hexdigest()))


def _changed(path: Path) -> UserError:
    return UserError(f"{path}: the file changed while it was stored: expected that nothing writes to it; start again")


class _HashingStream:
    """Passes bytes on to a stream, and computes their number and SHA-256."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size, self.sha256 = stream, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

"""Datasets that a machine has fetched from the storage: verified, one copy for all processes, bounded in size.

They lie in a folder of this user among the temporary files (TMPDIR), one folder each. A process that uses a dataset
holds a shared lock on it until it ends; who fetches or removes it needs the lock alone.
"""

import fcntl
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipelines.adapters.storage import Store
from pipelines.datasets.archives import Contents, examine
from pipelines.datasets.shards import THREADS, Shard, folder_of, read_index
from tcformer.errors import UserError
from tcformer.files import sha256_of_file, temporary_folder

_PART = ".part"  # ends the name of a dataset that is not complete yet
_DONE = ".done-"  # begins the name of an empty file in it: the shard with this SHA-256 is unpacked and on the disk
_LOCK = ".lock"
_REMOVED = "removed"  # name of a dataset that is being removed
_POLL_SECONDS = 0.2
_used: dict[Path, int] = {}  # datasets that this process uses: their locks, held until it ends


def cached_dataset(storage: str, sha256: str, limit: int, at: Callable[[str], None]) -> Path:
    """The folder of a dataset on this machine; the first process that needs it fetches it, the others wait.

    Args:
        storage: see `pipelines.adapters.storage.Store`.
        sha256: of the dataset.
        limit: bytes that all datasets on this machine may have; the ones that were used longest ago are removed.
        at: receives what this process does, in a few words.

    Raises:
        UserError: the dataset is not in the storage, or was altered there; the limit or the disk is too small; the
            folder for temporary files is one of another user.
    """
    cache = temporary_folder("data")
    folder = cache / sha256
    if folder in _used:
        return folder
    lock = _open_lock(folder)
    try:
        while True:
            # Changing the kind of a lock releases it for a moment: so the folder is looked for after each change.
            _acquire(lock, fcntl.LOCK_SH, at)
            if folder.is_dir():
                os.utime(folder)
                _used[folder] = lock
                return folder
            _acquire(lock, fcntl.LOCK_EX, at)
            if not folder.is_dir():
                _fetch(Store(storage), sha256, folder, limit, at)
    except BaseException:
        os.close(lock)
        raise


def _open_lock(folder: Path) -> int:
    return os.open(folder.with_name(f"{folder.name}{_LOCK}"), os.O_RDWR | os.O_CREAT, 0o600)


def _acquire(lock: int, kind: int, at: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not _try_lock(lock, kind):
        at(f"waiting for another process of this machine to fetch the dataset, {time.monotonic() - began:.0f} s")
        time.sleep(_POLL_SECONDS)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Altered(UserError):
    """The storage does not contain what was written there: nothing that was fetched is kept."""


def _fetch(store: Store, sha256: str, folder: Path, limit: int, at: Callable[[str], None]) -> None:
    """Fetch the shards of a dataset, several at a time, and unpack them into `folder`, which is there when all are.

    After an interruption the next call, perhaps of another process, fetches only the shards that are missing.
    """
    shards = read_index(store, sha256)
    if shards is None:
        raise UserError(
            f"{store.shown}/{folder_of(sha256)}: the dataset is not in the storage: expected what the stage that "
            "starts workers has written there; run the stage again"
        )
    part = folder.with_name(f"{folder.name}{_PART}")
    part.mkdir(mode=0o700, exist_ok=True)
    missing = _clean(part, shards)
    _make_room(folder, shards, missing, limit)
    total = sum(shard.size for shard in shards)
    done, counting = total - sum(shard.size for shard in missing), threading.Lock()

    def fetch(shard: Shard) -> None:
        nonlocal done
        _fetch_shard(store, f"{folder_of(sha256)}/{shard.name}", shard, part)
        os.sync()  # after a power failure the marker must not exist without the files
        _marker(part, shard).touch()
        with counting:
            done += shard.size
            at(f"fetching the dataset: {done / 1e9:.2f} of {total / 1e9:.2f} GB")

    at(f"fetching the dataset: {done / 1e9:.2f} of {total / 1e9:.2f} GB")
    try:
        with ThreadPoolExecutor(THREADS, "fetch") as pool:
            list(pool.map(fetch, missing))
    except _Altered:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for shard in shards:
        _marker(part, shard).unlink()
    part.rename(folder)


def _marker(part: Path, shard: Shard) -> Path:
    return part / f"{_DONE}{shard.sha256}"


def _clean(part: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Remove from an interrupted fetch all that is not of a complete shard; returns the shards that are missing."""
    complete = [shard for shard in shards if _marker(part, shard).is_file()]
    if not complete:
        shutil.rmtree(part)
        part.mkdir(mode=0o700)
        return list(shards)
    kept = {part / name for shard in complete for name, _ in shard.files}
    kept |= {_marker(part, shard) for shard in complete}
    for path in list(part.rglob("*")):
        if path not in kept and not path.is_dir():
            path.unlink()
    return [shard for shard in shards if shard not in complete]


def _fetch_shard(store: Store, key: str, shard: Shard, target: Path) -> None:
    copy = target / f".{shard.name}"
    try:
        try:
            archive = store.fetch(key, copy)
        except FileNotFoundError:
            raise _altered(store, key, "it is missing") from None
        if sha256_of_file(archive) != shard.sha256:
            raise _altered(store, key, "its bytes are not those of the index")
        try:
            contents = examine(archive)
        except UserError as error:
            raise _Altered(str(error)) from None
        if contents.size != sum(size for _, size in shard.files):
            raise _altered(store, key, "its files are not those of the index")
        with tarfile.open(archive) as tar:
            # tarfile fails where another thread makes the same folder at the same time.
            for place in {(target / name).parent for name in tar.getnames()}:
                place.mkdir(parents=True, exist_ok=True)
            tar.extractall(target, filter="data")
    finally:
        copy.unlink(missing_ok=True)  # a local storage gives its own file instead


def _altered(store: Store, key: str, fault: str) -> _Altered:
    folder = key.rpartition("/")[0]
    return _Altered(
        f"{store.shown}/{key}: {fault}: expected the shard that was written; delete {folder} in the storage, and run "
        "the stage again to have it written anew"
    )


def _make_room(folder: Path, shards: Sequence[Shard], missing: Sequence[Shard], limit: int) -> None:
    """Remove datasets that nobody uses, the one that was used longest ago first, until there is room for another one.

    Args:
        folder: of the dataset.
        shards: of the dataset.
        missing: those of them that are not on the disk yet.
        limit: see `cached_dataset`.

    Raises:
        UserError: the limit or the disk is too small.
    """
    whole = _disk_size(shards)
    # The last term: shards that are being unpacked.
    need = _disk_size(missing) + THREADS * max((shard.size for shard in missing), default=0)
    gate = _open_lock(folder.with_name("room"))  # one process of this machine at a time
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        shutil.rmtree(folder.with_name(_REMOVED), ignore_errors=True)  # of a process that was killed
        sizes, used = {}, {}
        for other in folder.parent.iterdir():
            with suppress(FileNotFoundError):  # it was complete, and renamed, just now
                if other.is_dir() and other.name != f"{folder.name}{_PART}":
                    sizes[other], used[other] = _size(other), other.stat().st_mtime

        def is_short() -> bool:
            return sum(sizes.values()) + whole > limit or _free(folder) < need

        for other in sorted(sizes, key=lambda path: used[path]):
            if is_short() and _remove_unused(other):
                del sizes[other]
        if sum(sizes.values()) + whole > limit:
            others = f", and {sum(sizes.values())} bytes are in use" if sizes else ""
            raise UserError(
                f"params.yaml: cluster.cache_size is {limit / 1e9:g} GB, but the dataset needs {whole} bytes{others}: "
                "expected room for the datasets that a machine uses at the same time; raise cluster.cache_size"
            )
        if _free(folder) < need:
            raise UserError(
                f"{folder.parent}: {_free(folder)} bytes are free on its disk: expected {need} for the "
                "dataset; free space there, or start Ray on this machine with TMPDIR set to a folder on a larger disk"
            )
    finally:
        os.close(gate)


def _disk_size(shards: Sequence[Shard]) -> int:
    files = [size for shard in shards for _, size in shard.files]
    return Contents(len(files), sum(files)).disk_size


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder.parent).free


def _remove_unused(folder: Path) -> bool:
    """Remove a dataset unless a process uses or fetches it; returns whether it is removed."""
    lock = _open_lock(folder.with_name(folder.name.removesuffix(_PART)))
    try:
        if not _try_lock(lock, fcntl.LOCK_EX) or not folder.is_dir():  # it was complete, and renamed, just now
            return False
        gone = folder.with_name(_REMOVED)  # renamed first: never a dataset with missing files
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True
    finally:
        os.close(lock)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder, as they count for the limit."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return Contents(len(sizes), sum(sizes)).disk_size

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


def _fetch(store: Store, sha256: str, folder: Path, limit: int, at: Callable[[str], None]) -> None:
    """Fetch the shards of a dataset, several at a time, and unpack them into `folder`, which is there when all are."""
    shards = read_index(store, sha256)
    if shards is None:
        raise UserError(
            f"{store.shown}/{folder_of(sha256)}: the dataset is not in the storage: expected what the stage that "
            "starts workers has written there; run the stage again"
        )
    part = folder.with_name(f"{folder.name}{_PART}")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    _make_room(folder, shards, limit)
    part.mkdir(mode=0o700)
    total, done, counting = sum(shard.size for shard in shards), 0, threading.Lock()

    def fetch(shard: Shard) -> None:
        nonlocal done
        _fetch_shard(store, f"{folder_of(sha256)}/{shard.name}", shard, part)
        with counting:
            done += shard.size
            at(f"fetching the dataset: {done / 1e9:.2f} of {total / 1e9:.2f} GB")

    at(f"fetching the dataset: 0 of {total / 1e9:.2f} GB")
    try:
        with ThreadPoolExecutor(THREADS, "fetch") as pool:
            list(pool.map(fetch, shards))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.sync()  # after a power failure the name must not exist without the files
    part.rename(folder)


def _fetch_shard(store: Store, key: str, shard: Shard, target: Path) -> None:
    copy = target / f".{shard.name}"
    try:
        try:
            archive = store.fetch(key, copy)
        except FileNotFoundError:
            raise UserError(_altered(store, key, "it is missing")) from None
        if sha256_of_file(archive) != shard.sha256:
            raise UserError(_altered(store, key, "its bytes are not those of the index"))
        if examine(archive).size != sum(size for _, size in shard.files):
            raise UserError(_altered(store, key, "its files are not those of the index"))
        with tarfile.open(archive) as tar:
            # tarfile fails where another thread makes the same folder at the same time.
            for place in {(target / name).parent for name in tar.getnames()}:
                place.mkdir(parents=True, exist_ok=True)
            tar.extractall(target, filter="data")
    finally:
        copy.unlink(missing_ok=True)  # a local storage gives its own file instead


def _altered(store: Store, key: str, fault: str) -> str:
    folder = key.rpartition("/")[0]
    return (
        f"{store.shown}/{key}: {fault}: expected the shard that was written; delete {folder} in the storage, and run "
        "the stage again to have it written anew"
    )


def _make_room(folder: Path, shards: Sequence[Shard], limit: int) -> None:
    """Remove datasets that nobody uses, the one that was used longest ago first, until there is room for another one.

    Raises:
        UserError: the limit or the disk is too small.
    """
    files = [size for shard in shards for _, size in shard.files]
    need = Contents(len(files), sum(files)).disk_size
    packed = THREADS * max((shard.size for shard in shards), default=0)  # shards that are being unpacked
    gate = _open_lock(folder.with_name("room"))  # one process of this machine at a time
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        shutil.rmtree(folder.with_name(_REMOVED), ignore_errors=True)  # of a process that was killed
        sizes, used = {}, {}
        for other in folder.parent.iterdir():
            with suppress(FileNotFoundError):  # it was complete, and renamed, just now
                if other.is_dir():
                    sizes[other], used[other] = _size(other), other.stat().st_mtime

        def is_short() -> bool:
            return sum(sizes.values()) + need > limit or _free(folder) < need + packed

        for other in sorted(sizes, key=lambda path: used[path]):
            if is_short() and _remove_unused(other):
                del sizes[other]
        if sum(sizes.values()) + need > limit:
            others = f", and {sum(sizes.values())} bytes are in use" if sizes else ""
            raise UserError(
                f"params.yaml: cluster.cache_size is {limit / 1e9:g} GB, but the dataset needs {need} bytes{others}: "
                "expected room for the datasets that a machine uses at the same time; raise cluster.cache_size"
            )
        if _free(folder) < need + packed:
            raise UserError(
                f"{folder.parent}: {_free(folder)} bytes are free on its disk: expected {need + packed} for the "
                "dataset; free space there, or start Ray on this machine with TMPDIR set to a folder on a larger disk"
            )
    finally:
        os.close(gate)


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

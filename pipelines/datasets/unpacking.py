"""Official archives to folders below the data root: checked, examined, unpacked and renamed, several in parallel.

A finished archive stays finished: after an interruption the next run continues with the others.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.datasets.archives import (
    Contents,
    check_md5,
    examine,
    extract,
    md5_of_file,
    no_progress,
    require_space,
)
from pipelines.datasets.byte_counts import ByteCounter, show_byte_counts
from pipelines.datasets.mapping import mapping_files
from pipelines.datasets.survey import FoundPath
from pipelines.params import Cluster
from pipelines.running.progress import say
from tcformer.data.official import Archive, Progress
from tcformer.errors import UserError
from tcformer.files import atomic_write

#: Folder below the data root for known checksums, the lock, and incomplete unpacked archives.
WORK_FOLDER = ".tcformer"

#: Smaller archives are unpacked in this process: starting Ray would take longer.
LEAST_BYTES_FOR_RAY = 1 << 28


@dataclass(frozen=True)
class UnpackJob:
    """An archive at `path` to be unpacked below a data root."""

    root: Path
    path: Path
    archive: Archive

    @property
    def count_file(self) -> Path:
        """Where the processed bytes are counted."""
        return self.root / WORK_FOLDER / "counts" / self.archive.name


def unpack(root: Path, found: Sequence[FoundPath], cluster: Cluster, title: str) -> None:
    """Unpack the archives that hold the required files which are "packed".

    Args:
        root: the data root.
        found: see `pipelines.datasets.survey.survey`.
        cluster: where many bytes are unpacked.
        title: begins every line about progress.

    Raises:
        UserError: a wrong checksum, an unsafe or damaged archive, a disk without enough space, a root that cannot be
            written to, or another process that unpacks there.
    """
    by_path = {path.found: UnpackJob(root, path.found, path.archive) for path in found if path.found and path.archive}
    jobs = list(by_path.values())
    if not jobs:
        return
    size = sum(job.path.stat().st_size for job in jobs)
    with _locked_work_folder(root) as work, _mapping(cluster, len(jobs) > 1 and size >= LEAST_BYTES_FOR_RAY) as each:
        with show_byte_counts(f"{title}: checking {len(jobs)} archives", work / "counts", size):
            contents = each(_check, jobs)
        require_space(root, contents)
        say(f"{title}: unpacking {', '.join(job.path.name for job in jobs)}")
        with show_byte_counts(f"{title}: unpacking", work / "counts", sum(found.size for found in contents)):
            for dependent in (False, True):  # archives that require the files of others are unpacked last
                pairs = [pair for pair in zip(jobs, contents) if bool(pair[0].archive.requires) == dependent]
                if pairs:
                    each(_unpack, pairs)


@contextmanager
def _locked_work_folder(root: Path) -> Iterator[Path]:
    """The work folder, for one process at a time; incomplete files are removed from it at the end.

    The operating system releases the lock when the process ends, however it ends.
    """
    work = root / WORK_FOLDER
    lock = FileLock(work / "lock", timeout=0)
    owner = work / "lock-owner"
    try:
        work.mkdir(exist_ok=True)
        lock.acquire()
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except Timeout:
        raise UserError(
            f"{root}: {_owner(owner)} is unpacking archives there: wait until it has ended, or stop it"
        ) from None
    except OSError as error:
        lock.release()
        raise UserError(
            f"{root}: cannot be written to ({error.strerror}), but archives have to be unpacked there: allow writing, "
            f"or unpack them yourself"
        ) from error
    try:
        yield work
    finally:
        for name in ("parts", "counts"):
            shutil.rmtree(work / name, ignore_errors=True)
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(note: Path) -> str:
    """The process that holds the lock, as far as it is known."""
    try:
        return note.read_text() or "another process"
    except OSError:
        return "another process"


@contextmanager
def _mapping(cluster: Cluster, parallel: bool) -> Iterator[Callable[..., list[Any]]]:
    if not parallel:
        yield lambda function, items: [function(item) for item in items]
        return
    with mapping_files(cluster) as each:
        yield each


def checksum(root: Path, path: Path, progress: Progress) -> str:
    """MD5 of an archive; the archive is read only if it has changed since its checksum was last computed."""
    try:
        size, modified, known = json.loads(_checksum_file(root, path).read_text())
        if [size, modified] == _size_and_time(path):
            return str(known)
    except (OSError, ValueError, TypeError, RecursionError):
        pass  # no known checksum
    return md5_of_file(path, progress)


def _checksum_file(root: Path, path: Path) -> Path:
    """Where an archive's checksum is kept."""
    return root / WORK_FOLDER / f"{path.name}.md5.json"


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _check(job: UnpackJob) -> Contents:
    counter = ByteCounter(job.count_file)
    if job.archive.md5:
        stamp, found = _size_and_time(job.path), checksum(job.root, job.path, counter)
        with atomic_write(_checksum_file(job.root, job.path)) as part:
            part.write_text(json.dumps([*stamp, found]))
        check_md5(job.path, job.archive.md5, found)
    contents = examine(job.path, no_progress if job.archive.md5 else counter)
    if not contents.files:
        raise UserError(f"{job.path}: contains no files; download it again from its publisher")
    return contents


def _unpack(pair: tuple[UnpackJob, Contents]) -> None:
    job, contents = pair
    part = job.root / WORK_FOLDER / "parts" / job.archive.name
    try:
        _write_files(job, contents, part)
        _move_to_target(part, job.root / job.archive.unpacks_to)
    except OSError as error:
        raise UserError(
            f"{job.path}: cannot be unpacked below {job.root} ({error.strerror}); allow writing there, or free space"
        ) from error


def _write_files(job: UnpackJob, contents: Contents, part: Path) -> None:
    counter = ByteCounter(job.count_file)
    if job.archive.unpack:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        job.archive.unpack(job.path, part, job.root, counter)
    else:
        extract(job.path, contents, part, counter)
    if job.archive.finish:
        job.archive.finish(job.path, part)


def _move_to_target(part: Path, target: Path) -> None:
    """Rename the unpacked folder: the folder of the target's name in it or, if there is none, all of it.

    Files beside such a folder in the archive, for instance a readme, are not kept.
    """
    source = part / target.name
    source = source if source.is_dir() else part
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()  # it is empty: otherwise the archive would not have been unpacked
    os.sync()  # after a power failure the name must not exist without the files
    source.rename(target)
    shutil.rmtree(part, ignore_errors=True)

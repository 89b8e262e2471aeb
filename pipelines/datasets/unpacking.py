"""Official archives to their official layout below the data root: checked, examined, unpacked, renamed; several at a
time. What is finished stays finished: a run that was stopped goes on with the archives that are left."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import parallel_map, session
from pipelines.datasets.archives import (
    Contents,
    Meter,
    check_md5,
    examine,
    extract,
    ignore,
    md5_of_file,
    require_space,
    shown,
)
from pipelines.datasets.catalogue import Archive, Item
from pipelines.params import Cluster
from tcformer.data.imagenet.class_archives import SUFFIX, WNID, sort_validation, validation_classes, write_index
from tcformer.errors import UserError

#: Below the root: checksums that were found, the lock, and unfinished unpackings.
WORK = ".tcformer"

#: Bytes of archives from which several are worth the start of a Ray.
PARALLEL_FROM = 1 << 28


@dataclass(frozen=True)
class Packed:
    """An archive that is to be unpacked below a root."""

    root: Path
    path: Path
    archive: Archive

    @property
    def meter(self) -> Path:
        """Where its progress is kept."""
        return self.root / WORK / "meters" / self.archive.name


def unpack(root: Path, items: Sequence[Item], cluster: Cluster, title: str) -> None:
    """Unpack the archives that hold the items which are "packed".

    Raises:
        UserError: a wrong checksum, an unsafe or damaged archive, too small a disk, a root that cannot be written to,
            or another process at work on it.
    """
    packed = {item.found: Packed(root, item.found, item.archive) for item in items if item.found and item.archive}
    jobs = list(packed.values())
    if not jobs:
        return
    size = sum(job.path.stat().st_size for job in jobs)
    with _work_folder(root) as work, _mapping(cluster, len(jobs) > 1 and size >= PARALLEL_FROM) as each:
        with shown(f"{title}: checking {len(jobs)} archives", work / "meters", size):
            contents = each(_examine, jobs)
        require_space(root, contents)
        print(f"{title}: unpacking {', '.join(job.path.name for job in jobs)}", flush=True)
        with shown(f"{title}: unpacking", work / "meters", sum(found.size for found in contents)):
            for late in (False, True):  # what an archive needs is unpacked before it
                wave = [pair for pair in zip(jobs, contents) if bool(pair[0].archive.needs) == late]
                if wave:
                    each(_unpack, wave)


@contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    """The folder of unfinished things, for one process at a time; emptied of them at the end."""
    work = root / WORK
    try:
        work.mkdir(exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"{root}: archives are to be unpacked there, but it cannot be written to ({error.strerror}); allow "
            f"writing, or unpack them yourself"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another process unpacks archives there; wait until it has ended") from None
        try:
            yield work
        finally:
            for name in ("parts", "meters"):
                shutil.rmtree(work / name, ignore_errors=True)


@contextmanager
def _mapping(cluster: Cluster, parallel: bool) -> Iterator[Callable[..., list[Any]]]:
    if not parallel:
        yield lambda function, items: [function(item) for item in items]
        return
    with session(cluster):
        yield parallel_map


def checksum(root: Path, path: Path, progress: Callable[[int], None]) -> str:
    """MD5 of an archive; read anew only if the archive has changed since it was last found."""
    try:
        size, changed, found = json.loads(_note(root, path).read_text())
        if [size, changed] == _stamp(path):
            return str(found)
    except (OSError, ValueError):
        pass  # never found, or not written to the end
    return md5_of_file(path, progress)


def _note(root: Path, path: Path) -> Path:
    """Where an archive's checksum is kept."""
    return root / WORK / f"{path.name}.md5.json"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _examine(job: Packed) -> Contents:
    meter = Meter(job.meter)
    if job.archive.md5:
        stamp, found = _stamp(job.path), checksum(job.root, job.path, meter)
        _note(job.root, job.path).write_text(json.dumps([*stamp, found]))
        check_md5(job.path, job.archive.md5, found)
    contents = examine(job.path, ignore if job.archive.md5 else meter)
    if not contents.files:
        raise UserError(f"{job.path}: holds no files; fetch it again from its publisher")
    return contents


def _unpack(pair: tuple[Packed, Contents]) -> None:
    job, contents = pair
    part = job.root / WORK / "parts" / job.archive.name
    try:
        _write(job, contents, part)
        _place(part, job.root / job.archive.gives)
    except OSError as error:
        raise UserError(
            f"{job.path}: cannot be unpacked below {job.root} ({error.strerror}); allow writing there, or make room"
        ) from error


def _write(job: Packed, contents: Contents, part: Path) -> None:
    meter = Meter(job.meter)
    if job.archive.how == "validation":
        classes = validation_classes(job.root / str(job.archive.needs))
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        sort_validation(job.path, classes, part, meter)
        return
    extract(job.path, contents, part, meter)
    if job.archive.how == "classes":
        _index_classes(job.path, part)


def _index_classes(archive: Path, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix != SUFFIX or not WNID.fullmatch(path.stem):
            raise UserError(f"{archive}: {path.name!r:.80}: expected class tars like n01440764.tar; fetch it again")
        try:
            write_index(path)
        except UserError as error:
            raise UserError(f"{archive}, in it {str(error).removeprefix(f'{folder}/')}") from None


def _place(part: Path, target: Path) -> None:
    """Rename what was unpacked: the folder of the target's name in it, or all of it if there is none.

    What lies beside such a folder in the archive (a readme, for instance) is not kept.
    """
    source = part / target.name
    source = source if source.is_dir() else part
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()  # empty, else it would not have been unpacked
    os.sync()  # the name must not outlive a power failure that the files do not
    source.rename(target)
    shutil.rmtree(part, ignore_errors=True)

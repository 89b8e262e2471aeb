"""Archives that somebody else made, unpacked without trusting them.

An archive is examined as a whole before a byte of it is written: plain files and folders only, all of them below the
target, no more bytes than such an archive can honestly hold. Then it is unpacked beside its target and renamed, so the
target holds all of it or does not exist.
"""

import errno
import gzip
import hashlib
import shutil
import stat
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from tcformer.errors import UserError

#: Bytes that an archive may unpack to: LARGEST_RATIO for each of its own, and SLACK. Annotations in JSON shrink to a
#: tenth, rows of zeros to a thousandth.
LARGEST_RATIO = 100
SLACK = 1 << 24

_CHUNK = 1 << 20
_BLOCK = 4096  # what a file takes on a disk at least
_FETCH = "fetch it again from its publisher"

Progress = Callable[[int], None]


def ignore(count: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds."""

    files: int
    #: bytes of the files
    size: int

    @property
    def disk(self) -> int:
        """Bytes that it takes on a disk, about."""
        return self.size + _BLOCK * self.files


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    folder: bool
    fault: str | None  # why it is refused
    open: Callable[[], Any]  # its bytes as a stream


def md5_of_file(path: Path, progress: Progress = ignore) -> str:
    """Hexadecimal MD5 of a file's bytes: what publishers give, and enough against damage in transfer."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def check_md5(path: Path, expected: str, found: str) -> None:
    """Raise UserError if a file's checksum is not the published one."""
    if found != expected:
        raise UserError(
            f"{path}: expected the published MD5 {expected}, got {found}: the download is damaged or another version; "
            f"delete it and {_FETCH}"
        )


def examine(archive: Path, progress: Progress = ignore) -> Contents:
    """Read the whole table of an archive (.zip, .tar, .tar.gz, .tgz) and write nothing.

    Args:
        progress: is told the bytes of the archive done since it was last called.

    Raises:
        UserError: damaged; a name that leaves the target; a link, device or other special file; the same name twice;
            more bytes than LARGEST_RATIO and SLACK allow.
    """
    files = size = 0
    names: set[str] = set()
    limit = _limit(archive)
    with _reading(archive):
        for member in _members(archive, progress):
            fault = member.fault or _fault_of_name(member)
            name = str(PurePosixPath(member.name))
            if fault is None and not member.folder and name in names:
                fault = "the same name twice"
            if fault:
                raise UserError(f"{archive}: refused, because {member.name!r:.100} is {fault}; {_FETCH}")
            if member.folder:
                continue
            names.add(name)
            files, size = files + 1, size + member.size
            if size > limit:
                raise _bomb(archive, limit)
    return Contents(files, size)


def extract(archive: Path, contents: Contents, target: Path, progress: Progress = ignore) -> None:
    """Write an archive's files below the folder `target`, which is made anew; after an error it does not exist.

    Args:
        contents: what `examine` said of the archive.
        progress: is told the bytes written since it was last called.

    Raises:
        UserError: see `examine`; the archive has changed since; the disk is full.
    """
    shutil.rmtree(target, ignore_errors=True)
    left = contents.size
    try:
        target.mkdir(parents=True)
        with _reading(archive):
            for member in _members(archive):
                left -= member.size
                fault = member.fault or _fault_of_name(member)
                if fault or left < 0:
                    raise UserError(f"it has changed while it was unpacked: {member.name!r:.100}; start again")
                _write(member, target / member.name, progress)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{archive}: the disk of {target.parent} is full: make room for {contents.disk} bytes there"
            ) from None
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise UserError(f"{archive}: refused, because it holds a file and a folder of one name; {_FETCH}") from None
        raise


def _write(member: _Member, path: Path, progress: Progress) -> None:
    if member.folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("xb") as stream:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            stream.write(chunk)
            progress(len(chunk))
    if left:
        raise UserError(f"{member.name!r:.100} does not hold the {member.size} bytes that it claims; {_FETCH}")


def require_space(folder: Path, contents: list[Contents]) -> None:
    """Raise UserError if the disk of `folder` has no room for the unpacked archives."""
    needed, free = sum(each.disk for each in contents), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: unpacking needs {needed} bytes ({needed / 1e9:.1f} GB), {free} are free: make room "
            f"there, or set the data root to a larger disk"
        )


def _limit(archive: Path) -> int:
    return LARGEST_RATIO * archive.stat().st_size + SLACK


def _bomb(archive: Path, limit: int) -> UserError:
    return UserError(
        f"{archive}: refused, because it would unpack to more than {limit} bytes, {LARGEST_RATIO} times its own size: "
        f"a bomb; {_FETCH}"
    )


def _fault_of_name(member: _Member) -> str | None:
    name = member.name
    path = PurePosixPath(name)
    if path.is_absolute() or name[1:2] == ":":
        return "an absolute path"
    if ".." in path.parts:
        return "a path out of the target"
    unnamed = not path.parts and not member.folder  # "./" is the target itself
    if unnamed or "\\" in name or any(ord(letter) < 32 for letter in name):
        return "no name of a file"
    return None


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say of any damage in one sentence which archive it is in."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise UserError(f"{archive}: cannot be read ({error}): it is damaged; {_FETCH}") from error
    except UserError as error:
        told = str(error)
        raise UserError(told if told.startswith(str(archive)) else f"{archive}: refused: {told}") from None


def _members(archive: Path, progress: Progress = ignore) -> Iterator[_Member]:
    if archive.suffix == ".zip":
        yield from _zip_members(archive)
    elif archive.suffix in (".gz", ".tgz"):
        with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
            bounded: Any = _Bounded(plain, raw, archive, progress)
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                yield from _tar_members(tar)
    else:
        with tarfile.open(archive, "r:") as tar:
            yield from _tar_members(tar)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            fault = None
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "a link" if kind == stat.S_IFLNK else "a special file"
            elif info.flag_bits & 1:
                fault = "encrypted"
            # orig_filename: zipfile cuts names at a zero byte.
            yield _Member(info.orig_filename, info.file_size, info.is_dir(), fault, partial(opened.open, info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        fault = None
        if info.issym() or info.islnk():
            fault = "a link"
        elif not info.isdir() and (not info.isreg() or info.issparse()):
            fault = "a sparse file" if info.issparse() else "a special file"
        size = 0 if info.isdir() else info.size
        yield _Member(info.name, size, info.isdir(), fault, partial(tar.extractfile, info))


class _Bounded:
    """A decompressed stream that stops a bomb, headers and padding included."""

    def __init__(self, stream: gzip.GzipFile, raw: IO[bytes], archive: Path, progress: Progress) -> None:
        self._stream, self._raw, self._archive, self._progress = stream, raw, archive, progress
        self._limit, self._done, self._told = _limit(archive), 0, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._done > self._limit:
            raise _bomb(self._archive, self._limit)
        place = self._raw.tell()
        self._progress(place - self._told)
        self._told = place
        return data


class Meter:
    """Counts bytes done and writes the count to a file twice a second, which `shown` reads in another process."""

    def __init__(self, path: Path) -> None:
        self._path, self._done, self._told = path, 0, 0.0

    def __call__(self, count: int) -> None:
        """`count` more bytes are done."""
        self._done += count
        if time.monotonic() > self._told + 0.5:
            self._told = time.monotonic()
            self._path.write_text(str(self._done))


@contextmanager
def shown(title: str, meters: Path, total: int) -> Iterator[None]:
    """Show what the meters in the folder `meters` count, of `total` bytes, and the remaining time, while the body runs:
    a bar on a terminal, elsewhere a line every tenth of the way."""
    done = threading.Event()
    shutil.rmtree(meters, ignore_errors=True)
    meters.mkdir(parents=True)

    def watch() -> None:
        began, told = time.monotonic(), 0
        with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            while not done.wait(1.0):
                count = min(total, sum(_number(path) for path in meters.iterdir()))
                bar.update(count - bar.n)
                tenth = 10 * count // max(1, total)
                if bar.disable and tenth > told:
                    told = tenth
                    left = (time.monotonic() - began) * (total - count) / max(1, count)
                    print(f"{title}: {10 * tenth} % of {total / 1e9:.1f} GB, {left:.0f} s left", flush=True)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _number(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):  # just being written
        return 0

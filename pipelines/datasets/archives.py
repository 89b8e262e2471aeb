"""Unpacking of archives that are not trusted.

An archive is examined as a whole before any of it is written: it may contain plain files and folders only, all of them
below the target, and no more bytes than an honest archive of its size. After an error the target does not exist.
"""

import errno
import gzip
import hashlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tcformer.data.official import Progress
from tcformer.errors import UserError

#: An archive may unpack to LARGEST_RATIO times its own size plus FREE_BYTES. Annotations in JSON are compressed to a
#: tenth of their size, zeros to a thousandth.
LARGEST_RATIO = 100
FREE_BYTES = 1 << 24

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DEFLATE64 = 9  # with which Windows compresses large files
_CHUNK = 1 << 20
_BLOCK = 4096  # bytes of disk space that the smallest file needs
_DOWNLOAD = "download it again from its publisher"


def no_progress(count: int) -> None:
    """A `Progress` that is not shown."""


@dataclass(frozen=True)
class Contents:
    """What an archive contains.

    Attributes:
        files: their number.
        size: bytes of all files.
    """

    files: int
    size: int

    @property
    def disk_size(self) -> int:
        """Bytes of disk space that the unpacked files need, approximately."""
        return self.size + _BLOCK * self.files


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    fault: str | None  # why it is refused
    open: Callable[[], Any]  # opens its bytes as a stream


def md5_of_file(path: Path, progress: Progress = no_progress) -> str:
    """Hexadecimal MD5 of a file's bytes: publishers give no other checksum, and it detects damaged downloads."""
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
            f"{path}: the MD5 is {found}: expected the published {expected}, so the download is damaged or another "
            f"version; delete it and {_DOWNLOAD}"
        )


def examine(archive: Path, progress: Progress = no_progress) -> Contents:
    """Read the headers of all members of an archive (.zip, .tar, .tar.gz, .tgz); nothing is written.

    Args:
        archive: the file.
        progress: receives the bytes of the archive that were read.

    Raises:
        UserError: the archive is damaged, or contains a path outside the target, a link, device or other special file,
            a duplicate name, or more bytes than LARGEST_RATIO and FREE_BYTES allow.
    """
    files = size = 0
    names: set[str] = set()
    limit = _limit(archive)
    with _reading(archive):
        for member in _members(archive, progress):
            fault = member.fault or _fault_of_name(member)
            name = str(PurePosixPath(member.name))
            if fault is None and not member.is_folder and name in names:
                fault = "a duplicate name"
            if fault:
                raise UserError(
                    f"{archive}: unsafe archive: its member {member.name!r:.100} is {fault}: expected plain files with "
                    f"names below the target; {_DOWNLOAD}"
                )
            if member.is_folder:
                continue
            names.add(name)
            files, size = files + 1, size + member.size
            if size > limit:
                raise _decompression_bomb(archive, limit)
    return Contents(files, size)


def extract(archive: Path, contents: Contents, target: Path, progress: Progress = no_progress) -> None:
    """Unpack an archive.

    Args:
        archive: the file.
        contents: what `examine` returned for it.
        target: folder to write to; an existing one is removed first. After an error it does not exist.
        progress: receives the bytes that were written.

    Raises:
        UserError: as of `examine`; also if the archive has changed since then, or the disk is full.
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
                    raise UserError(f"it changed while it was unpacked, at {member.name!r:.100}; start again")
                _write(member, target / member.name, progress)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{archive}: the disk of {target.parent} is full: expected {contents.disk_size} free bytes; free space "
                f"there"
            ) from None
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise UserError(f"{archive}: a file and a folder in it have the same name; {_DOWNLOAD}") from None
        raise


def _write(member: _Member, path: Path, progress: Progress) -> None:
    if member.is_folder:
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
        raise UserError(f"{member.name!r:.100} is not of {member.size} bytes, as its header says; {_DOWNLOAD}")


def require_space(folder: Path, contents: list[Contents]) -> None:
    """Raise UserError if the disk of `folder` has not enough free space for the unpacked archives."""
    needed, free = sum(each.disk_size for each in contents), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {free} bytes are free on its disk: expected {needed} ({needed / 1e9:.1f} GB) for unpacking; "
            f"free space there, or set the data root to a folder on a larger disk"
        )


def _limit(archive: Path) -> int:
    return LARGEST_RATIO * archive.stat().st_size + FREE_BYTES


def _decompression_bomb(archive: Path, limit: int) -> UserError:
    return UserError(
        f"{archive}: a decompression bomb: expected at most {limit} unpacked bytes, about {LARGEST_RATIO} times its "
        f"size; {_DOWNLOAD}"
    )


def _fault_of_name(member: _Member) -> str | None:
    name = member.name
    path = PurePosixPath(name)
    if path.is_absolute() or name[1:2] == ":":
        return "an absolute path"
    if ".." in path.parts:
        return "a path outside the target"
    unnamed = not path.parts and not member.is_folder  # the folder "./" is the target itself
    if unnamed or "\\" in name or any(ord(letter) < 32 for letter in name):
        return "not a valid file name"
    return None


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn errors of a damaged archive into a UserError that names it; errors of reading and writing pass."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(archive)) else f"{archive}: {message}") from None
    except Exception as error:  # the readers raise many types
        is_damage = not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile) or error.errno == errno.EINVAL
        if not is_damage or isinstance(error, MemoryError):
            raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{archive}: damaged archive ({reason}); {_DOWNLOAD}") from error


def _members(archive: Path, progress: Progress = no_progress) -> Iterator[_Member]:
    if archive.suffix == ".zip":
        yield from _zip_members(archive)
    elif archive.suffix in (".gz", ".tgz"):
        with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
            limited: Any = _LimitedStream(plain, raw, archive, progress)
            with tarfile.open(fileobj=limited, mode="r|") as tar:
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
            if info.compress_type not in _COMPRESSIONS:
                method = "Deflate64" if info.compress_type == _DEFLATE64 else f"the method {info.compress_type}"
                raise UserError(
                    f"{archive}: its member {info.orig_filename!r:.100} is compressed by {method}: expected deflate or "
                    "no compression; unpack it with 7-Zip, and remove the archive"
                )
            # orig_filename, because zipfile cuts names at a zero byte.
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


class _LimitedStream:
    """A decompressed stream that raises UserError beyond a number of bytes; headers and padding count too."""

    def __init__(self, stream: gzip.GzipFile, raw: IO[bytes], archive: Path, progress: Progress) -> None:
        self._stream, self._raw, self._archive, self._progress = stream, raw, archive, progress
        self._limit, self._done, self._reported = _limit(archive), 0, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._done > self._limit:
            raise _decompression_bomb(self._archive, self._limit)
        place = self._raw.tell()
        self._progress(place - self._reported)
        self._reported = place
        return data

"""The storage adapter: files that driver and workers share, in a folder or behind an s3:// or gs:// address."""

import contextlib
import errno
import io
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pipelines.redaction import redacted
from tcformer.errors import UserError
from tcformer.files import atomic_write

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # begins an address; one of a single slash is a mistake
_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit of the process
_EXPECTED = "expected a folder, or an address s3://bucket/folder or gs://bucket/folder"


class DiskFull(UserError):
    """There is no space for a file: another attempt would not help."""


class Store:
    """Files below one root, named by relative POSIX paths ("keys").

    When a write returns, the data are on the disk (a folder) or accepted by the object store. A key never holds half a
    file: not after an error, and not while a write is going on.

    Args:
        root: a folder, or an address that pyarrow understands.

    Raises:
        UserError: it is an address of another kind, or none at all.
    """

    def __init__(self, root: str) -> None:
        self.local = not _SCHEME.match(root)
        self.root = self._path = str(Path(root).expanduser()) if self.local else root
        self._files: Any = None
        if not root.strip() or "\0" in root:
            raise UserError(f"cluster.storage is {redacted(root)!r}: {_EXPECTED}; correct it in params.yaml")
        if not self.local:
            self._files, self._path = self._open_address()

    @property
    def shown(self) -> str:
        """The root for messages: without the password of an address."""
        return redacted(self.root)

    def _open_address(self) -> tuple[Any, str]:
        import pyarrow.fs

        scheme, _, place = self.root.partition(":")
        known = f"cluster.storage is {self.shown}"
        if scheme not in _SCHEMES or not place.startswith("//") or not place.strip("/"):
            meant = redacted(f"{scheme.lower()}://{place.lstrip('/')}")
            near = f"; did you mean {meant}?" if scheme.lower() in _SCHEMES else ""
            raise UserError(f"{known}: {_EXPECTED}{near}; correct it in params.yaml")
        try:
            files, path = pyarrow.fs.FileSystem.from_uri(self.root)
        except Exception as error:  # pyarrow raises many types
            raise UserError(f"{known}: {_EXPECTED} ({_first_line(error)}); correct it in params.yaml") from error
        return files, str(path)

    @contextlib.contextmanager
    def _opening(self, purpose: str = "written to") -> Iterator[None]:
        """Turn the failure to make a folder or to open a file into a UserError that names the storage."""
        try:
            yield
        except FileNotFoundError:
            if purpose == "read":
                raise
            raise self._not_usable(purpose, "no such folder") from None
        except OSError as error:
            raise self._not_usable(purpose, _first_line(error)) from error

    def _not_usable(self, purpose: str, reason: str) -> UserError:
        return UserError(
            f"cluster.storage {self.shown} cannot be {purpose} ({reason}): {_EXPECTED} that driver and workers may "
            "read and write; make it, allow access, or correct it in params.yaml"
        )

    def put(self, source: Path, key: str) -> None:
        """Copy the local file `source` to `key`."""
        self._write(key, source.open("rb"))

    def write(self, key: str, content: bytes) -> None:
        """Make `content` the file `key`."""
        self._write(key, io.BytesIO(content))

    def _write(self, key: str, source: BinaryIO) -> None:
        with source:
            if self.local:
                with self._opening():
                    Path(self._at(key)).parent.mkdir(parents=True, exist_ok=True)
                size = source.seek(0, os.SEEK_END)
                source.seek(0)
                with (
                    room_for(Path(self._path), size, key),
                    atomic_write(Path(self._at(key)), durable=True) as part,
                    part.open("wb") as stream,
                ):
                    shutil.copyfileobj(source, stream, 1 << 22)
                return
            # Closing a stream makes the object, also after an error: so it gets another name until it is whole. Object
            # stores rename by copying, S3 up to 5 GB.
            part_key = self._at(f"{key}.{uuid.uuid4().hex[:8]}.part")
            try:
                with self._open_output(part_key) as stream:
                    shutil.copyfileobj(source, stream, 1 << 22)
                self._files.move(part_key, self._at(key))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.delete_file(part_key)
                raise

    def _open_output(self, path: str) -> Any:
        with self._opening():
            try:
                return self._files.open_output_stream(path)
            except FileNotFoundError:  # a file system that has folders
                self._files.create_dir(str(PurePosixPath(path).parent))
                return self._files.open_output_stream(path)

    def require_space(self, size: int, what: str) -> None:
        """Raise DiskFull if the disk of a local store has less than `size` bytes free for `what`."""
        if self.local and size > _free_bytes(Path(self._path)):
            raise _disk_full(Path(self._path), size, what)

    def size(self, folder: str) -> int:
        """Bytes of all files below a folder."""
        if self.local:
            return sum(path.lstat().st_size for path in Path(self._at(folder)).rglob("*") if not path.is_dir())
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(self._at(folder), allow_not_found=True, recursive=True)
        with self._opening("read"):
            entries = self._files.get_file_info(selector)
        return sum(entry.size or 0 for entry in entries)

    def read(self, key: str) -> bytes | None:
        """Bytes of `key`, None where there is no such file."""
        try:
            with self._opening("read"):
                if self.local:
                    return Path(self._at(key)).read_bytes()
                with self._files.open_input_stream(self._at(key)) as stream:
                    return bytes(stream.read())
        except FileNotFoundError:
            return None

    def fetch(self, key: str, target: Path) -> Path:
        """A local file with the bytes of `key`: the file itself where the store is local, else a copy at
        `target`. Raises FileNotFoundError."""
        if self.local:
            found = Path(self._at(key))
            if not found.is_file():
                raise FileNotFoundError(found)
            return found
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._files.open_input_stream(self._at(key)) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, 1 << 22)
        return target

    def folders(self) -> list[str]:
        """Names of the folders directly below the root, sorted."""
        if self.local:
            root = Path(self._path)
            return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(self._path, allow_not_found=True)
        with self._opening("read"):
            entries = self._files.get_file_info(selector)
        return sorted(entry.base_name for entry in entries if entry.type == pyarrow.fs.FileType.Directory)

    def delete(self, folder: str) -> None:
        """Remove a folder and all below it, if it exists."""
        if self.local:
            shutil.rmtree(self._at(folder), ignore_errors=True)
        elif folder in self.folders():
            self._files.delete_dir(self._at(folder))

    def _at(self, key: str) -> str:
        return str(PurePosixPath(self._path) / key)


@contextlib.contextmanager
def room_for(folder: Path, size: int, what: str) -> Iterator[None]:
    """Turn the failure of the body to write `size` bytes in `folder` because of a full disk into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _disk_full(folder, size, what) from error


def _disk_full(folder: Path, size: int, what: str) -> DiskFull:
    return DiskFull(
        f"{folder}: there is no space for {what}: it needs {size} bytes, and the disk has {_free_bytes(folder)} bytes "
        "free; free some space, or raise the quota or the limit of a file's size. Earlier checkpoints are unchanged, "
        "and the same command resumes from the last one"
    )


def _free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder that need not exist yet."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return redacted((reason.strip().splitlines() or [type(error).__name__])[0])[:200]

"""The storage adapter: files that driver and workers share, in a folder or behind an s3:// or gs:// address."""

import contextlib
import io
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
_EXPECTED = "expected a folder, or an address s3://bucket/folder or gs://bucket/folder"


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
                with atomic_write(Path(self._at(key)), durable=True) as part, part.open("wb") as stream:
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


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return redacted((reason.strip().splitlines() or [type(error).__name__])[0])[:200]

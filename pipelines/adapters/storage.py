"""The storage adapter: files that driver and workers share, in a folder or behind an s3:// or gs:// address."""

import contextlib
import io
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tcformer.files import atomic_write


class Store:
    """Files below one root, named by relative POSIX paths ("keys").

    When a write returns, the data are on the disk (a folder) or accepted by the object store. A key never holds half a
    file: not after an error, and not while a write is going on.

    Args:
        root: a folder, or an address that pyarrow understands.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.local = "://" not in root
        self._path = root
        self._files: Any = None
        if not self.local:
            import pyarrow.fs

            self._files, self._path = pyarrow.fs.FileSystem.from_uri(root)

    def put(self, source: Path, key: str) -> None:
        """Copy the local file `source` to `key`."""
        self._write(key, source.open("rb"))

    def write(self, key: str, content: bytes) -> None:
        """Make `content` the file `key`."""
        self._write(key, io.BytesIO(content))

    def _write(self, key: str, source: BinaryIO) -> None:
        with source:
            if self.local:
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
        try:
            return self._files.open_output_stream(path)
        except FileNotFoundError:  # a file system that has folders
            self._files.create_dir(str(PurePosixPath(path).parent))
            return self._files.open_output_stream(path)

    def read(self, key: str) -> bytes | None:
        """Bytes of `key`, None where there is no such file."""
        try:
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

"""Files that driver and workers share: a folder of this machine or a network disk, or an s3:// or gs:// address."""

import io
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any


class Store:
    """Files below one root, named by relative POSIX paths ("keys").

    Writing ends with the data on disk (local roots) or accepted by the object store, and a key never holds half a
    file.
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
        """Copy the local file ``source`` to ``key``."""
        self._write(key, source.open("rb"))

    def write(self, key: str, content: bytes) -> None:
        """Make ``content`` the file ``key``."""
        self._write(key, io.BytesIO(content))

    def _write(self, key: str, source: Any) -> None:
        with source:
            if not self.local:
                with self._files.open_output_stream(self._at(key)) as stream:
                    shutil.copyfileobj(source, stream, 1 << 22)
                return
            target = Path(self._at(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                with part.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 22)
                    stream.flush()
                    os.fsync(stream.fileno())
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            folder = os.open(target.parent, os.O_RDONLY)  # makes the rename itself durable
            os.fsync(folder)
            os.close(folder)

    def read(self, key: str) -> bytes | None:
        """Bytes of ``key``, None where there is no such file."""
        try:
            if self.local:
                return Path(self._at(key)).read_bytes()
            with self._files.open_input_stream(self._at(key)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def fetch(self, key: str, target: Path) -> Path:
        """A local file with the bytes of ``key``: the file itself where the store is local, else a copy at
        ``target``. Raises FileNotFoundError."""
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

"""Files on disk: atomic writing, hashes of contents, and folders that only this user can write to."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tcformer.errors import UserError


def user_path(path: str | Path) -> Path:
    """A path that a person gave: `~` is the home folder, as in a shell."""
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Write a file completely or not at all.

    The body of the `with` statement writes to a temporary path in the same folder, with the same suffix. When the body
    ends, the temporary file is renamed to `path`. If the body raises, the temporary file is removed and `path` stays
    unchanged.

    Args:
        path: the file; its folder is created if it does not exist.
        durable: flush the file and its name to the disk, so that they survive a power failure.

    Yields:
        The temporary path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield part
        if durable:
            _flush(part)
        part.replace(path)
        if durable:
            _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON: the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def can_write(folder: Path) -> bool:
    """Whether this process can make files in a folder; creates the folder if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def user_cache() -> Path | None:
    """The user's cache folder; None if it cannot be written, or if the user has no home folder."""
    named = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(named) if os.path.isabs(named) and can_write(Path(named)) else None


def private_folder(path: Path) -> Path:
    """Create a folder that only this user can use, or check that an existing one is such a folder.

    Everybody can write to the folder for temporary files. Another user could therefore make a folder of a known name
    first, or a link of that name, and change what we read from it.

    Args:
        path: the folder; the folder above it exists.

    Raises:
        UserError: it is a link or a file, belongs to another user, is open to others, or cannot be made.
    """
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise UserError(
            f"{path}: this folder cannot be made ({error.strerror}): expected a folder for temporary files that can be "
            "written; name one in the environment variable TMPDIR"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        fault = "is no folder" if not stat.S_ISLNK(found.st_mode) else "is a link"
    elif found.st_uid != os.getuid():
        fault = f"belongs to another user (number {found.st_uid})"
    elif found.st_mode & 0o077:
        fault = f"can be used by other users (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return path
    raise UserError(
        f"{path} {fault}: expected a folder that only you can use (mode 700); remove it, or name another folder for "
        "temporary files in the environment variable TMPDIR"
    )


def temporary_folder(name: str, within: str | None = None) -> Path:
    """A folder that only this user can reach, the same one for all processes.

    Args:
        name: of the folder; what is in it stays after the process.
        within: folder for temporary files; the default is that of `tempfile`, which TMPDIR names.

    Raises:
        UserError: see `private_folder`.
    """
    try:
        place = Path(within or tempfile.gettempdir())
    except FileNotFoundError:
        raise UserError(
            "no folder for temporary files can be written: expected that /tmp or the folder that the environment "
            "variable TMPDIR names can be; set TMPDIR to a folder that can be written"
        ) from None
    folder = private_folder(place / f"tcformer-{os.getuid()}") / name
    folder.mkdir(exist_ok=True)  # tools may change its mode: nobody else gets this far
    return folder


def give_numba_a_cache(code: Path) -> None:
    """Name a folder for numba's compiled functions if it has none, because it refuses to be imported then.

    numba keeps them beside the code, or in the user's cache folder.

    Args:
        code: a folder with functions that numba compiles.
    """
    if "NUMBA_CACHE_DIR" in os.environ or can_write(code / "__pycache__") or user_cache():
        return
    with suppress(UserError):  # numba's own error comes, but only where functions are compiled
        os.environ["NUMBA_CACHE_DIR"] = str(temporary_folder("numba"))

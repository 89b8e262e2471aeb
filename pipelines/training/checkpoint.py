"""Checkpoints that survive a crash at any moment.

A checkpoint is a folder such as `step-00000120` in the training's store. Its files are written first; `manifest.json`
with the SHA-256 of each file is written last and atomically. A folder is a valid checkpoint if and only if its manifest
exists and every hash matches. The files are safetensors and JSON: opening them executes nothing.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.adapters.storage import DiskFull, Store
from tcformer.files import sha256_of_file

KEPT = 2
MANIFEST = "manifest.json"
FINAL = "final"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, its files readable below `folder`."""

    step: int
    name: str
    folder: Path


def folder_name(step: int) -> str:
    """Name of the checkpoint that was taken after `step` optimiser steps."""
    return f"step-{step:08d}"


def save(store: Store, name: str, files: Iterable[tuple[str, bytes]], size: int) -> None:
    """Write the files of the checkpoint `name`, and last its manifest, which makes it valid.

    Args:
        store: of the training.
        name: of the folder.
        files: names, POSIX paths, and contents.
        size: bytes of all of them.

    Raises:
        DiskFull: the disk of the store is full; nothing is left of this checkpoint, and the others are unchanged.
        UserError: the store cannot be written; the folder is incomplete.
    """
    store.require_space(size, f"the checkpoint {name}")
    digests = {}
    try:
        for file, content in files:
            digests[file] = hashlib.sha256(content).hexdigest()
            store.write(f"{name}/{file}", content)
        commit(store, name, digests)
    except DiskFull:
        store.delete(name)
        raise


def commit(store: Store, name: str, digests: dict[str, str]) -> None:
    """Make the files in the folder `name` a valid checkpoint, by writing the manifest."""
    store.write(f"{name}/{MANIFEST}", json.dumps(digests, indent=1, sort_keys=True).encode())


def fault(store: Store, name: str, cache: Path, files: Collection[str] = ()) -> str | None:
    """Why the checkpoint `name` cannot be used; None if it is valid and `files` are among its files.

    Remote files are copied to `cache`.
    """
    text = store.read(f"{name}/{MANIFEST}")
    if text is None:
        return "it was never finished"
    try:
        digests = json.loads(text)
        for key, digest in digests.items():
            if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
                return f"its manifest names {key}, which is outside of it"
            if sha256_of_file(store.fetch(f"{name}/{key}", cache / name / key)) != digest:
                return f"{key} was altered"
        for file in files:
            if file not in digests:
                return f"it contains no {file}, so another program wrote it"
    except (ValueError, AttributeError, RecursionError, IsADirectoryError, NotADirectoryError):
        return "its manifest is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error)).name} is missing"
    return None


def open_verified(store: Store, name: str, cache: Path) -> Path:
    """The local folder of the checkpoint `name`, its hashes checked. Raises RuntimeError if it is not valid."""
    found = fault(store, name, cache)
    if found:
        raise RuntimeError(f"checkpoint {name} in {store.shown} cannot be used: {found}")
    return _folder(store, name, cache)


def _folder(store: Store, name: str, cache: Path) -> Path:
    return Path(store.root) / name if store.local else cache / name


def newest(store: Store, cache: Path, warn: Callable[[str], None], files: Collection[str] = ()) -> Checkpoint | None:
    """The newest valid checkpoint with these files.

    Damaged and unfinished ones, and those of other programs, are skipped, and `warn` is called with the reason.
    """
    for name in reversed(steps(store)):
        problem = fault(store, name, cache, files)
        if problem is None:
            return Checkpoint(int(name.removeprefix("step-")), name, _folder(store, name, cache))
        warn(f"checkpoint {name} is not used: {problem}")
    return None


def tidy(store: Store, name: str) -> None:
    """Remove what the valid checkpoint `name` makes superfluous: all but the last two, or all but the final weights."""
    superfluous = set(store.folders()) - {name} if name == FINAL else steps(store)[:-KEPT]
    for other in sorted(superfluous):
        store.delete(other)


def last_complete(store: Store) -> str:
    """Name of the newest checkpoint that has a manifest; "none" if there is none."""
    names = reversed(steps(store))
    return next((name for name in names if store.read(f"{name}/{MANIFEST}") is not None), "none")


def steps(store: Store) -> list[str]:
    """Names of the checkpoints in a training's store, valid or not, from the oldest to the newest."""
    return [name for name in store.folders() if re.fullmatch(r"step-\d{8}", name)]

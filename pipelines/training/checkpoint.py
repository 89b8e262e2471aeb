"""Checkpoints that survive a crash at any moment.

A checkpoint is a folder such as `step-00000120` in the training's store. Its files are written first; `manifest.json`
with the SHA-256 of each file is written last and atomically. A folder is a valid checkpoint if and only if its manifest
exists and every hash matches. The files are safetensors and JSON: opening them executes nothing.
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.adapters.storage import Store
from tcformer.errors import UserError
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


def upload(store: Store, name: str, folder: Path) -> dict[str, str]:
    """Upload every file below `folder` to the checkpoint `name`; returns their SHA-256 by name, for `commit`.

    Raises:
        UserError: the disk of the store is full; nothing is left of this checkpoint, and the others are unchanged.
    """
    digests = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    store.require_space(sum(path.stat().st_size for path in files), f"the checkpoint {name}")
    for path in files:
        key = path.relative_to(folder).as_posix()
        digests[key] = sha256_of_file(path)
        try:
            store.put(path, f"{name}/{key}")
        except UserError:
            store.delete(name)
            raise
    return digests


def commit(store: Store, name: str, digests: dict[str, str]) -> None:
    """Make the uploaded files a valid checkpoint, by writing the manifest."""
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


def prune(store: Store) -> None:
    """Remove all but the last two checkpoints. It is called after a commit, so that a valid one remains."""
    for name in steps(store)[:-KEPT]:
        store.delete(name)


def steps(store: Store) -> list[str]:
    """Names of the checkpoints in a training's store, valid or not, from the oldest to the newest."""
    return [name for name in store.folders() if re.fullmatch(r"step-\d{8}", name)]

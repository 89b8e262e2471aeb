"""Checkpoints that survive a crash at any moment.

A checkpoint is a folder ``step-00000120`` in the training's store. Its files are written first; ``manifest.json``,
with the SHA-256 of each, is written last and in one piece: a folder is a checkpoint exactly if its manifest is there
and every digest matches. DeepSpeed's files are pickles, that is, code; they are opened only after that check.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.adapters.storage import Store
from tcformer.files import sha256_of_file

KEPT = 2
MANIFEST = "manifest.json"
FINAL = "final"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, its files readable below ``folder``."""

    step: int
    name: str
    folder: Path


def folder_name(step: int) -> str:
    """Name of the checkpoint that was taken after ``step`` optimiser steps."""
    return f"step-{step:08d}"


def upload(store: Store, name: str, folder: Path) -> dict[str, str]:
    """Put every file below ``folder`` into checkpoint ``name``; returns their digests, for ``commit``."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = path.relative_to(folder).as_posix()
        digests[key] = sha256_of_file(path)
        store.put(path, f"{name}/{key}")
    return digests


def commit(store: Store, name: str, digests: dict[str, str]) -> None:
    """Declare the uploaded files of all workers a checkpoint."""
    store.write(f"{name}/{MANIFEST}", json.dumps(digests, indent=1, sort_keys=True).encode())


def fault(store: Store, name: str, cache: Path) -> str | None:
    """Why ``name`` cannot be used, None if it can. Remote files are left in ``cache``, for ``open_verified``."""
    text = store.read(f"{name}/{MANIFEST}")
    if text is None:
        return "it was never finished"
    try:
        digests = json.loads(text)
        for key, digest in digests.items():
            if sha256_of_file(store.fetch(f"{name}/{key}", cache / name / key)) != digest:
                return f"{key} was altered"
    except (ValueError, AttributeError):
        return "its manifest is damaged"
    except FileNotFoundError as error:
        return f"{Path(str(error)).name} is missing"
    return None


def open_verified(store: Store, name: str, cache: Path) -> Path:
    """Local folder of checkpoint ``name`` after its digests were checked. Raises RuntimeError with the fault."""
    found = fault(store, name, cache)
    if found:
        raise RuntimeError(f"checkpoint {name} in {store.root} cannot be used: {found}")
    return _folder(store, name, cache)


def _folder(store: Store, name: str, cache: Path) -> Path:
    return Path(store.root) / name if store.local else cache / name


def newest(store: Store, cache: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest valid checkpoint. Faulty ones are passed over, and ``say`` is told why."""
    for name in reversed(_steps(store)):
        problem = fault(store, name, cache)
        if problem is None:
            return Checkpoint(int(name.removeprefix("step-")), name, _folder(store, name, cache))
        say(f"checkpoint {name} is not used: {problem}")
    return None


def prune(store: Store) -> None:
    """Remove all but the last checkpoints. Called after a commit, so those kept include a valid one."""
    for name in _steps(store)[:-KEPT]:
        store.delete(name)


def _steps(store: Store) -> list[str]:
    return [name for name in store.folders() if re.fullmatch(r"step-\d{8}", name)]

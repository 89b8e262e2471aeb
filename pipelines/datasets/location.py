"""Where a worker finds a dataset: at its path, or else as shards in the storage that all machines reach."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.cache import cached_dataset

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class DataLocation:
    """Where the files of a dataset are; travels to workers.

    Attributes:
        root: the folder with the files on the driver's machine, and on others that have it.
        storage: where the shards are, see `pipelines.datasets.shards`; None: every machine has `root`.
        sha256: of the dataset.
        probes: names and sizes of a few files, by which a machine knows whether its `root` is this dataset.
        cache_bytes: of the datasets that a machine keeps, at most.
    """

    root: str
    storage: str | None = None
    sha256: str = ""
    probes: tuple[tuple[str, int], ...] = ()
    cache_bytes: int = 0


def fetch_dataset(location: DataLocation, at: Callable[[str], None] = lambda text: None) -> Path:
    """Root of a dataset on this machine: its path if the dataset is there, else a copy from the storage.

    Args:
        location: says where it is.
        at: receives what this process does while it takes long, in a few words.

    Raises:
        UserError: see `pipelines.datasets.cache.cached_dataset`.
    """
    root = Path(location.root)
    if location.storage is None or _is_at(root, location):
        return root
    return cached_dataset(location.storage, location.sha256, location.cache_bytes, at)


def _is_at(root: Path, location: DataLocation) -> bool:
    """Whether a folder contains the dataset: by the manifest of `prepare`, else by the sizes of a few files."""
    try:
        manifest = root / MANIFEST
        if manifest.is_file():
            return bool(json.loads(manifest.read_text(encoding="utf-8"))["sha256"] == location.sha256)
        sizes = [(root / name).stat().st_size == size for name, size in location.probes]
        return bool(sizes) and all(sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""Where a worker finds a dataset: on its own disk, or as an archive in the storage that all machines reach."""

import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pipelines.adapters.storage import Store


@dataclass(frozen=True)
class DataLocation:
    """Where the files of a dataset are.

    Attributes:
        root: folder on the worker's disk, or in the archive's case the storage.
        archive: key of a tar file in the storage; None if `root` is the folder itself.
    """

    root: str
    archive: str | None = None


def fetch_dataset(location: DataLocation) -> Path:
    """Root of the dataset on this machine; the first worker of a machine unpacks what comes as an archive."""
    if location.archive is None:
        return Path(location.root)
    cache = Path(tempfile.gettempdir()) / "tcformer-data"
    cache.mkdir(exist_ok=True)
    folder = cache / Path(location.archive).stem
    with FileLock(cache / f"{folder.name}.lock"):
        if not folder.is_dir():
            archive = Store(location.root).fetch(location.archive, cache / location.archive)
            part = cache / f"{folder.name}.part"  # renamed when complete: a crash leaves no half dataset
            shutil.rmtree(part, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
            part.rename(folder)
    return folder

"""Where a worker finds a dataset: on its own disk, or as an archive in the storage that all machines reach."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pipelines.adapters.storage import Store
from tcformer.files import temporary_folder


@dataclass(frozen=True)
class DataLocation:
    """Where the files of a dataset are; travels to workers.

    Attributes:
        root: the folder with the files; if there is an archive, the storage that holds it.
        archive: key of a tar file in the storage, see `pipelines.adapters.storage.Store`.
    """

    root: str
    archive: str | None = None


def fetch_dataset(location: DataLocation) -> Path:
    """Root of a dataset on this machine; the machine's first worker unpacks an archive, the others wait for it."""
    if location.archive is None:
        return Path(location.root)
    cache = temporary_folder("data")
    folder = cache / Path(location.archive).stem
    with FileLock(cache / f"{folder.name}.lock"):
        if not folder.is_dir():
            downloaded = cache / location.archive
            archive = Store(location.root).fetch(location.archive, downloaded)
            part = cache / f"{folder.name}.part"  # renamed when complete: a crash leaves no incomplete dataset
            shutil.rmtree(part, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
            part.rename(folder)
            downloaded.unlink(missing_ok=True)  # a local store gave its own file instead
    return folder

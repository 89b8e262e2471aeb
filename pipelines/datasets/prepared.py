"""A prepared dataset: its manifest, and how workers get its files."""

import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.adapters.storage import Store
from pipelines.datasets.location import DataLocation
from tcformer.checks import read_json
from tcformer.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        root: folder of its files.
        sha256: of its content.
        official: whether it is an official dataset, which stays in the user's folder.
    """

    root: Path
    sha256: str
    official: bool

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Read the manifest in `folder`. Raises UserError if `prepare` has not run."""
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{path}: no such file: expected a prepared dataset; run `dvc repro prepare` first")
        manifest = read_json(path, "run `dvc repro prepare` first")
        root, sha256 = (manifest.get(name) if isinstance(manifest, dict) else None for name in ("root", "sha256"))
        if not isinstance(sha256, str) or not isinstance(root, str | None):
            raise UserError(f"{path}: expected 'root' and 'sha256' of a prepared dataset; run `dvc repro -f prepare`")
        return cls(Path(root) if root else folder, sha256, bool(root))

    def location_for_workers(self, storage: str | None) -> DataLocation:
        """Where workers find the files, see `pipelines.datasets.location.fetch_dataset`.

        A generated dataset travels through `storage` as one archive, which is written once. An official dataset is
        read where it is, so every machine must have it under the same path.
        """
        if storage is None or self.official:
            return DataLocation(str(self.root))
        key = f"data-{self.sha256[:16]}.tar"
        store = Store(storage)
        if store.read(f"{key}.complete") is None:
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                with tarfile.open(archive.name, "w") as tar:
                    tar.add(self.root, ".")
                store.put(Path(archive.name), key)
            store.write(f"{key}.complete", b"")
        return DataLocation(storage, key)

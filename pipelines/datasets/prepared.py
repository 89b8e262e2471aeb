"""What the stage `prepare` makes: a dataset in its official layout, and a manifest of its content."""

import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import parallel_map, session
from pipelines.adapters.storage import Store
from pipelines.datasets.downloads import complete
from pipelines.datasets.key_lines import place_of
from pipelines.datasets.location import DataLocation
from pipelines.datasets.survey import find_downloads
from pipelines.layout import PARAMS
from pipelines.params import Params
from tcformer.errors import UserError
from tcformer.files import atomic_write, sha256_of_file, sha256_of_json
from tcformer.tasks import TASKS

MANIFEST = "manifest.json"

_IMAGES_PER_RAY_TASK = 16


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
        manifest = json.loads(path.read_text())
        root = manifest["root"]
        return cls(Path(root) if root else folder, manifest["sha256"], bool(root))

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


def prepare(task: str, params: Params, out: Path) -> None:
    """Generate a task's dataset below `out`, or complete the official one where it is; write the manifest to `out`.

    Raises:
        UserError: official files are missing, damaged or unsafe, or the parameters do not name their folder.
    """
    data = params.active.data_of(task)
    content: dict[str, str]
    details: dict[str, Any] = {}
    root = None
    if data.source == "official":
        downloads = find_downloads(task, params)
        inventory = complete(downloads, params.cluster)
        root, content = downloads.root, inventory.identities
        details = {"counts": inventory.counts, "identities": inventory.identities}
        _make_empty(out)
    else:
        _generate(task, params, out)
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
        content = {path.relative_to(out).as_posix(): sha256_of_file(path) for path in files}
    manifest = {
        "task": task,
        "source": data.source,
        "root": None if root is None else str(root),
        "sha256": sha256_of_json(content),
        "files": len(content),
        **details,
    }
    with atomic_write(out / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1))
    print(f"prepare@{task}: {manifest['files']} files, sha256 {str(manifest['sha256'])[:16]}")


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _generate(task: str, params: Params, out: Path) -> None:
    options = params.active.data_of(task).generate
    if options is None:
        key = f"{params.recipe}.data.{task}"
        raise UserError(
            f"{place_of(f'{key}.generate', PARAMS)}: {key}.generate is null: expected the options of generated images, "
            f"because {key}.source is generated; add them, or set source: official"
        )
    _make_empty(out)  # images of an earlier, larger dataset must not remain in this one
    with session(params.cluster):
        each = partial(parallel_map, chunk=_IMAGES_PER_RAY_TASK, title=f"prepare@{task}")
        TASKS[task].part("generate").generate(out, options, map=each)

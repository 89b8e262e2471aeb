"""What ``prepare`` makes: a data set in its official layout, and a manifest that says what it is."""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import parallel_map, session
from pipelines.adapters.storage import Store
from pipelines.datasets.catalogue import Source
from pipelines.datasets.downloads import complete, data_root
from pipelines.datasets.location import DataLocation
from pipelines.params import Cluster, DataSource
from pipelines.provenance import sha256_of_json
from tcformer.errors import UserError
from tcformer.files import sha256_of_file

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: where its files are and which bytes they hold."""

    root: Path
    sha256: str
    official: bool

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Read the manifest below ``folder``. Raises UserError where ``prepare`` has not run."""
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} holds no prepared data: run `dvc repro prepare` first")
        manifest = json.loads(path.read_text())
        root = manifest["root"]
        return cls(Path(root) if root else folder, manifest["sha256"], bool(root))

    def location_for_workers(self, storage: str | None) -> DataLocation:
        """How workers find the files (see `fetch_dataset`).

        Generated data travel through ``storage`` as one archive; official data are read where they are, so every
        node must see them under the same path.
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


def prepare(task: str, data: DataSource[Any], cluster: Cluster, out: Path, sources: Sequence[Source] = ()) -> None:
    """Generate ``task``'s data set below ``out``, or unpack, convert and check the official one; write the manifest.

    Args:
        sources: what the parameters of the mesh task name, see `pipelines.datasets.catalogue.mesh_sources`.

    Raises:
        UserError: official files are missing, damaged or unsafe, or the section does not say where they are.
    """
    described: dict[str, str]
    more: dict[str, Any] = {}
    if data.source == "official":
        root = data_root(task, data.root)
        inventory = complete(task, root, cluster, sources)
        described, more = inventory.identities, {"counts": inventory.counts, "identities": inventory.identities}
        _empty(out)
    else:
        root = out
        _empty(out)  # images of an earlier, larger set would count as this one's
        _generate(task, data, cluster, out)
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
        described = {path.relative_to(out).as_posix(): sha256_of_file(path) for path in files}
    manifest = {
        "task": task,
        "source": data.source,
        "root": str(root) if root != out else None,
        "sha256": sha256_of_json(described),
        "files": len(described),
        **more,
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1))
    print(f"prepare@{task}: {manifest['files']} files, sha256 {str(manifest['sha256'])[:16]}")


def _empty(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _generate(task: str, data: DataSource[Any], cluster: Cluster, out: Path) -> None:
    if data.generate is None:
        raise UserError(f"data.{task}.generate is missing: source: generated needs it")
    from tcformer import synthetic

    generate: Any = getattr(synthetic, f"generate_{task}")
    with session(cluster):
        generate(out, data.generate, map=partial(parallel_map, chunk=16, title=f"prepare@{task}"))

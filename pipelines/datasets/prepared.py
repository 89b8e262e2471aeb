"""A prepared dataset: its manifest, and how workers get its files."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.adapters.ray import needs_storage
from pipelines.adapters.storage import Store
from pipelines.datasets.location import MANIFEST, DataLocation
from pipelines.datasets.shards import store_dataset
from pipelines.params import Cluster
from tcformer.checks import read_json
from tcformer.data.official import Inventory, OfficialDataset
from tcformer.errors import UserError
from tcformer.files import sha256_of_json
from tcformer.tasks import ALL_TASKS, TaskSpec

_PROBES = 256  # at most


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

    @classmethod
    def of_layout(cls, root: Path, task: TaskSpec, evaluation: object) -> "Prepared":
        """A folder in the official layout of a task that `prepare` need not have seen.

        Args:
            root: the folder.
            task: with the options that name its files.
            evaluation: options of the evaluation, which name further files.
        """
        if (root / MANIFEST).is_file():
            return cls.open(root)
        return cls(root, sha256_of_json(_inventory(root, task, evaluation).identities), True)

    def location_for_workers(self, cluster: Cluster, task: TaskSpec, evaluation: object) -> DataLocation:
        """Where workers find the files, see `pipelines.datasets.location.fetch_dataset`.

        If Ray's nodes may be other machines and there is a storage, the dataset is written there first, once.

        Args:
            cluster: where the workers run.
            task: that reads the dataset, with its options.
            evaluation: options of its evaluation.
        """
        if cluster.storage is None or not needs_storage(cluster):
            return DataLocation(str(self.root))

        def names() -> list[str]:
            if self.official:
                return sorted(set(_inventory(self.root, task, evaluation).files))
            return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

        shards = store_dataset(
            Store(cluster.storage), self.root, self.sha256, names, f"storing the data of {task.name}"
        )
        files = [file for shard in shards for file in shard.files]
        probes = tuple(files[:: -(-len(files) // _PROBES) or 1])
        return DataLocation(str(self.root), cluster.storage, self.sha256, probes, int(cluster.cache_size * 1e9))


def _inventory(root: Path, task: TaskSpec, evaluation: object) -> Inventory:
    official: OfficialDataset = ALL_TASKS[task.name].part("official").OFFICIAL
    return official.take_inventory(root, official.sources(task.options, evaluation))

"""The package that a submitted job consists of: this commit, the uncommitted changes, and what the job shall do.

It is a zip file that Ray unpacks on every node. It contains the files that git tracks, untracked files that git does
not ignore, and a git directory with the one commit, so that DVC works there and results record the revision.
"""

import hashlib
import json
import socket
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.layout import ROOT
from pipelines.running.commands import git
from tcformer.errors import UserError
from tcformer.files import sha256_of_file

#: Bytes of the largest package: Ray keeps it in the memory of its head and sends it in one message of 512 MiB.
LARGEST_PACKAGE = 500 << 20
ORDER = ".tcformer-job.json"  # the file of the package that says what to do
_OLDEST = (1980, 1, 1, 0, 0, 0)  # of zip files: one time for all, so that equal contents are equal packages


@dataclass(frozen=True)
class Order:
    """What a job shall do.

    Attributes:
        identity: of the job.
        checkout: the folder on the cluster in which jobs of one checkout run, one after the other.
        command: with its arguments.
        files: SHA-256 of each file that was sent.
        held: hashes of DVC's outputs that the submitter has already.
        largest_output: bytes; larger outputs stay on the cluster.
        doctor: whether to check the cluster before the command starts.
    """

    identity: str
    checkout: str
    command: list[str]
    files: dict[str, str]
    held: list[str]
    largest_output: int
    doctor: bool

    @classmethod
    def read(cls, path: Path) -> "Order":
        """The order in a package that Ray has unpacked."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def checkout_key(root: Path = ROOT) -> str:
    """Names a checkout of one machine, so that its next job continues where the last one stopped."""
    return hashlib.sha256(f"{socket.gethostname()}:{root.resolve()}".encode()).hexdigest()[:16]


def sent_files(root: Path = ROOT) -> list[str]:
    """Relative paths of the files that a package contains, sorted: all that git tracks or does not ignore."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    names = sorted({name for name in listed if name})
    # A tracked file may be deleted, and an untracked repository or a submodule is listed as a folder.
    return [name for name in names if (root / name).is_file()]


def held_outputs(lock: Path, cache: Path) -> list[str]:
    """Hashes of the outputs in a dvc.lock that a DVC cache contains.

    Args:
        lock: the dvc.lock; it may be missing.
        cache: DVC's cache folder.
    """
    return sorted({out["md5"] for out in locked_outputs(lock).values() if object_path(cache, out["md5"]).is_file()})


def locked_outputs(lock: Path) -> dict[str, dict[str, str]]:
    """Path -> stage, md5 and size of each output in a dvc.lock, which may be missing."""
    if not lock.is_file():
        return {}
    stages = (YAML(typ="safe").load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {
        out["path"]: {**out, "stage": name}
        for name, stage in stages.items()
        for out in stage.get("outs", [])
        if "md5" in out
    }


def object_path(cache: Path, md5: str) -> Path:
    """Where DVC's cache keeps the object of a hash, which ends with ".dir" for a folder's list of files."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def write_package(order: Order, target: Path, root: Path = ROOT) -> None:
    """Write the package of an order to the zip file `target`.

    Raises:
        UserError: there is no commit, or the package is larger than Ray accepts.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        repository = _shallow_repository(root, Path(folder))
        for name in order.files:
            _add(package, root / name, name)
        for path in sorted(repository.rglob("*")):
            _add(package, path, path.relative_to(repository.parent).as_posix())
        package.writestr(zipfile.ZipInfo(ORDER, _OLDEST), json.dumps(asdict(order), indent=1))
    size = target.stat().st_size
    if size > LARGEST_PACKAGE:
        largest = sorted(order.files, key=lambda name: -(root / name).stat().st_size)[:3]
        named = ", ".join(f"{name} ({(root / name).stat().st_size >> 20} MB)" for name in largest)
        raise UserError(
            f"{root}: this commit and its changes are {size >> 20} MB, and Ray accepts {LARGEST_PACKAGE >> 20} MB: "
            f"expected code without data; name large files in .gitignore, the largest are {named}"
        )


def hashes(names: Sequence[str], root: Path = ROOT) -> dict[str, str]:
    """Path -> SHA-256 of files below `root`."""
    return {name: sha256_of_file(root / name) for name in names}


def _add(package: zipfile.ZipFile, path: Path, name: str) -> None:
    about = zipfile.ZipInfo(name + ("/" if path.is_dir() else ""), _OLDEST)
    about.external_attr = path.stat().st_mode << 16
    about.compress_type = zipfile.ZIP_DEFLATED
    package.writestr(about, b"" if path.is_dir() else path.read_bytes())


def _shallow_repository(root: Path, folder: Path) -> Path:
    """A git directory below `folder` that contains the present commit and no history."""
    new = folder / "repository"
    git(root, "init", "--quiet", "--template=", str(new))
    # The path and not the name of a remote is given, so nothing of this machine is left in the configuration.
    git(new, "fetch", "--quiet", "--depth", "1", "--no-tags", f"file://{root.resolve()}", "HEAD")
    git(new, "update-ref", "HEAD", "FETCH_HEAD")
    git(new, "reset", "--quiet", "HEAD")
    (new / ".git" / "FETCH_HEAD").unlink()
    return new / ".git"

"""The results of a job: one archive, packed where the job ran and unpacked where it was submitted.

DVC's outputs travel as objects of DVC's cache, whose hashes are checked, and `dvc checkout` restores them. Other files
that the command wrote (dvc.lock, metrics, results of a stage that ran without DVC) travel as files. A file that has
changed here since it was sent is kept, and the job's version goes to runs/submitted/<job>/.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.cluster.package import ORDER, Order, locked_outputs, object_path, sent_files
from pipelines.layout import ROOT
from pipelines.running.commands import dvc, dvc_cache
from tcformer.errors import UserError
from tcformer.files import atomic_write, sha256_of_file

MANIFEST = "manifest.json"
_OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
#: Folders that hold no results. Checkpoints stay where the next job of the checkout finds them.
_IGNORED = re.compile(r"(^|/)(\.git|\.dvc/(cache|tmp)|__pycache__|\.venv|\.tcformer)(/|$)|^runs/[^/]+/checkpoints(/|$)")

Snapshot = dict[str, tuple[int, int, int]]  # path -> size, time and number of each file


def snapshot(root: Path) -> Snapshot:
    """The files below `root` that can be results, as they are now."""
    found: Snapshot = {}
    for folder, folders, names in os.walk(root):
        place = PurePosixPath(Path(folder).relative_to(root))
        folders[:] = [name for name in folders if not _IGNORED.search(str(place / name))]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and name != ORDER and not name.endswith(".pyc"):
                about = path.stat()
                found[str(place / name)] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


@dataclass
class Packed:
    """What an archive contains.

    Attributes:
        files: path -> its SHA-256.
        objects: hashes of objects of DVC's cache.
        left: path -> bytes of outputs that are too large to be sent.
    """

    files: dict[str, str] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    left: dict[str, int] = field(default_factory=dict)


def pack(
    order: Order, root: Path, before: Snapshot, known: Mapping[str, list[str]], cache: Path | None, target: Path
) -> Packed:
    """Write the archive `target` of what a command has made.

    Args:
        order: of the job.
        root: folder in which the command ran.
        before: see `snapshot`; of the time before the command.
        known: path -> hashes that the submitter may have of a file that the command has changed.
        cache: of DVC, or None.
        target: the archive.
    """
    packed = Packed()
    outputs = _cached_outputs(root, cache) if cache else {}
    with atomic_write(target) as part, tarfile.open(part, "w") as archive:
        for path, out in outputs.items():
            if out["md5"] in order.held:
                continue
            if int(out.get("size", 0)) > order.largest_output:
                packed.left[path] = int(out["size"])
                continue
            assert cache is not None
            for md5 in _objects_of(cache, out["md5"]):
                if md5 not in packed.objects:
                    packed.objects.add(md5)
                    archive.add(object_path(cache, md5), f"objects/{md5}")
        for name, about in snapshot(root).items():
            if before.get(name) == about or any(name == path or name.startswith(f"{path}/") for path in outputs):
                continue
            sha256 = sha256_of_file(root / name)
            if order.files.get(name) == sha256:
                continue
            if about[0] > order.largest_output:
                packed.left[name] = about[0]
                continue
            packed.files[name] = sha256
            archive.add(root / name, f"files/{name}")
        text = json.dumps(
            {
                "files": packed.files,
                "known": {name: known.get(name, []) for name in packed.files},
                "left": packed.left,
            }
        ).encode()
        about_text = tarfile.TarInfo(MANIFEST)
        about_text.size = len(text)
        archive.addfile(about_text, io.BytesIO(text))  # last: an archive that was cut off has none
    return packed


def _cached_outputs(root: Path, cache: Path) -> dict[str, dict[str, str]]:
    """The outputs in dvc.lock that DVC's cache has: not those that git keeps, or that no command has made here.

    For its memory of runs, DVC's cache has those that git keeps too, but a checkout does not restore them.
    """
    outputs = locked_outputs(root / "dvc.lock")
    kept_by_git = set(sent_files(root))
    return {
        path: out
        for path, out in outputs.items()
        if path not in kept_by_git and object_path(cache, out["md5"]).is_file()
    }


def _objects_of(cache: Path, md5: str) -> Iterator[str]:
    """Hash of an output, and of each file in it if it is a folder."""
    yield md5
    if md5.endswith(".dir"):
        for entry in json.loads(object_path(cache, md5).read_text(encoding="utf-8")):
            yield entry["md5"]


@dataclass
class Unpacked:
    """What came back.

    Attributes:
        files: paths that were written.
        objects: number of files in DVC's cache that are new.
        stages: DVC's stages that were checked out.
        kept: paths that have changed here; the job's versions are in `others`.
        others: that folder.
        left: path -> bytes of outputs that stayed on the cluster.
        checkout_failed: what DVC said if it could not restore the outputs; "" otherwise.
    """

    others: Path
    files: list[str] = field(default_factory=list)
    objects: int = 0
    stages: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    checkout_failed: str = ""


def unpack(archive: Path, identity: str, root: Path = ROOT) -> Unpacked:
    """Take the results of a job out of its archive.

    Nothing outside of `root` and DVC's cache is written, and no file that does not have its hash.

    Args:
        archive: see `pack`.
        identity: of the job.
        root: of the checkout.

    Raises:
        UserError: the archive is damaged or contains what no job packs.
    """
    others = root / "runs" / "submitted" / identity
    received = others / "received"
    shutil.rmtree(received, ignore_errors=True)
    received.mkdir(parents=True)
    try:
        try:
            with tarfile.open(archive, "r:") as packed:
                packed.extractall(received, filter="data")  # refuses paths that lead out of the folder, and devices
            manifest = json.loads((received / MANIFEST).read_text(encoding="utf-8"))
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise _damaged(identity, str(error)) from None
        unpacked = Unpacked(others, left=dict(manifest["left"]))
        cache = dvc_cache(root)
        objects = {path.name for path in (received / "objects").glob("*")}
        if cache:
            unpacked.objects = _take_objects(received / "objects", cache, identity)
        for name, sha256 in manifest["files"].items():
            _take_file(received / "files" / name, name, sha256, manifest["known"].get(name, []), root, unpacked)
        if cache and "dvc.lock" not in unpacked.kept:
            outputs = locked_outputs(root / "dvc.lock").values()
            unpacked.stages = sorted({out["stage"] for out in outputs if out["md5"] in objects})
        if unpacked.stages:
            # --: a name in the dvc.lock that came is no option.
            done = dvc(root, "checkout", "--allow-missing", "--", *unpacked.stages)
            if done.returncode:
                unpacked.checkout_failed = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return unpacked
    finally:
        shutil.rmtree(received, ignore_errors=True)
        if not any(others.iterdir()):
            others.rmdir()


def _damaged(identity: str, reason: str) -> UserError:
    return UserError(
        f"the results of {identity} are not as they were packed ({reason}): expected the archive that the job wrote; "
        f"try `tcformer jobs fetch {identity}` again"
    )


def _take_objects(folder: Path, cache: Path, identity: str) -> int:
    """Move objects to DVC's cache; returns how many it did not have."""
    new = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _OBJECT.fullmatch(path.name):
            raise _damaged(identity, f"{path.name!r} is no object of DVC")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != path.name[:32]:
            raise _damaged(identity, f"an object of the hash {path.name} has the hash {found}")
        target = object_path(cache, path.name)
        if not target.exists():
            with atomic_write(target) as part:
                shutil.move(path, part)
                part.chmod(0o444)  # as DVC does
            new += 1
    return new


def _take_file(source: Path, name: str, sha256: str, known: list[str], root: Path, unpacked: Unpacked) -> None:
    """Put one file to its place, or beside it if another one is there that the job did not know."""
    identity = unpacked.others.name
    place = PurePosixPath(name)
    if (
        not place.parts
        or place.is_absolute()
        or ".." in place.parts
        or place.parts[0] in (".git", ".dvc")
        or _IGNORED.search(name)
    ):
        raise _damaged(identity, f"{name!r} is no place for results")
    if not source.is_file() or sha256_of_file(source) != sha256:
        raise _damaged(identity, f"{name} is missing or has another hash")
    target = root / name
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise _damaged(identity, f"{name} leads out of {root}")
    if target.is_symlink() or (target.exists() and sha256_of_file(target) not in (sha256, *known)):
        unpacked.kept.append(name)
        target = unpacked.others / name
    else:
        unpacked.files.append(name)
    with atomic_write(target) as part:
        shutil.move(source, part)


def describe(unpacked: Unpacked) -> list[str]:
    """Lines that say what came back."""
    lines = [
        f"results: {len(unpacked.files)} files, {unpacked.objects} new files in DVC's cache"
        + (f"; checked out: {', '.join(unpacked.stages)}" if unpacked.stages and not unpacked.checkout_failed else "")
    ]
    if unpacked.kept:
        lines.append(
            f"kept, because they have changed here since they were sent: {', '.join(unpacked.kept)}; the job's "
            f"versions are in {unpacked.others}"
        )
    if "dvc.lock" in unpacked.kept:
        lines.append("the outputs are in DVC's cache: take over the job's dvc.lock and run `dvc checkout`")
    if unpacked.checkout_failed:
        lines.append(f"DVC could not restore the outputs ({unpacked.checkout_failed}): run `dvc checkout`")
    for name, size in unpacked.left.items():
        lines.append(f"{name} ({size / 1e9:.1f} GB) stayed on the cluster: see --largest-output")
    return lines

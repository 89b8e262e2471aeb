"""A folder of downloads to a data set in its official layout, and what is to be said of such a folder."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipelines.adapters.ray import parallel_map, session
from pipelines.datasets.archives import check_md5, examine, ignore, require_space
from pipelines.datasets.catalogue import MPI_INF_3DHP, Item, Source, missing_message, require, survey, wanted
from pipelines.datasets.inventory import Inventory, take_inventory
from pipelines.datasets.unpacking import checksum, unpack
from pipelines.params import Cluster, DataSource
from tcformer.body.files import convert_smpl
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.mesh.files import load_spin
from tcformer.errors import UserError


def data_root(task: str, given: str | None) -> Path:
    """The folder of a task's downloads. Raises UserError where the parameters name none."""
    if given is None:
        needed = ", ".join(each.path for each in wanted(task, ()))
        raise UserError(f"data.{task}.root is null: give the folder of the downloads that hold {needed} (docs/data.md)")
    root = Path(given).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"data.{task}.root: {root} is no folder: make it and put the downloads there (docs/data.md)")
    return root


def complete(task: str, root: Path, cluster: Cluster, sources: Sequence[Source]) -> Inventory:
    """Bring the downloads below ``root`` to the official layout: unpack, link and convert what is not there yet.

    Returns:
        What is there then.

    Raises:
        UserError: anything is missing (files and archives are looked for before anything is done), damaged or unsafe.
    """
    items = survey(task, root, sources)
    require(task, root, items)
    while any(item.state == "packed" for item in items):  # an archive of body models may lack one that another holds
        unpack(root, items, cluster, f"prepare@{task}")
        items = survey(task, root, sources)
        require(task, root, items)
    for item in items:
        if item.state in ("elsewhere", "to convert") and item.found:
            target = root / item.wanted.path
            print(f"prepare@{task}: making {target} from {item.found}", flush=True)
            with _writing(target):
                _make(item.found, target)
    for source in sources:
        if Path(source.annotations).name == MPI_INF_3DHP:
            _extract_frames(root / source.annotations, root / source.images, cluster, f"prepare@{task}")
    inventory = take_inventory(task, root, sources)
    require(task, root, inventory.missing)
    for warning in inventory.warnings(task):
        print(f"prepare@{task}: warning: {root}: {warning}")
    return inventory


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); allow writing, or make room") from error


def _make(source: Path, target: Path) -> None:
    """Make a file of the official layout from what was found in its stead; whole, or not at all."""
    if source.is_dir():
        mpi_inf_3dhp.convert(source, target)
        return
    part = target.with_name(f"part-{target.name}")
    part.unlink(missing_ok=True)
    try:
        if source.suffix == target.suffix:
            _link(source, part)
        else:
            convert_smpl(source, part)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _extract_frames(annotations: Path, folder: Path, cluster: Cluster, title: str) -> None:
    """Take the images that MPI-INF-3DHP's annotations name out of the videos, where they are not there yet."""
    frames = mpi_inf_3dhp.missing_frames(folder, load_spin(annotations).image)
    if frames:
        with _writing(folder), session(cluster):
            parallel_map(partial(mpi_inf_3dhp.extract_frames, folder), frames, title=f"{title}: videos")


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, so that it takes no room; a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class Row:
    """A line of what ``check`` tells."""

    state: Literal["there", "ready", "missing", "wrong", "warning"]
    what: str
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether ``prepare`` would succeed in spite of it."""
        return self.state not in ("missing", "wrong")


def check(task: str, data: DataSource[Any], sources: Sequence[Source] = ()) -> list[Row]:
    """What ``prepare`` would find, without writing anything.

    "ready" is what it would unpack, link or convert. Archives are read: those with a published checksum take a while.
    """
    if data.source == "generated":
        return [Row("ready", "generated images", "nothing to obtain")]
    try:
        root = data_root(task, data.root)
    except UserError as error:
        return [Row("missing", "data root", str(error))]
    items = survey(task, root, sources)
    rows = []
    for item in items:
        note = f"from {item.found}" if item.found else item.hint
        state: Any = item.state if item.state in ("there", "missing") else "ready"
        rows.append(Row(state, item.wanted.path, note))
    rows += _check_archives(root, items)
    if all(item.state == "there" for item in items):
        rows += _check_contents(task, root, sources)
    missing = [item for item in items if item.state == "missing"]
    if missing:
        rows.append(Row("missing", f"{len(missing)} in all", missing_message(task, root, missing)))
    return rows


def _check_archives(root: Path, items: Sequence[Item]) -> list[Row]:
    rows, contents = [], []
    for path, archive in {item.found: item.archive for item in items if item.found and item.archive}.items():
        try:
            if archive.md5:
                check_md5(path, archive.md5, checksum(root, path, ignore))
            contents.append(examine(path))
            checked = ", MD5 right" if archive.md5 else ""
            rows.append(Row("ready", path.name, f"{contents[-1].files} files{checked}"))
        except UserError as error:
            rows.append(Row("wrong", path.name, str(error)))
    try:
        require_space(root, contents)
    except UserError as error:
        rows.append(Row("wrong", "disk", str(error)))
    return rows


def _check_contents(task: str, root: Path, sources: Sequence[Source]) -> list[Row]:
    try:
        inventory = take_inventory(task, root, sources)
    except UserError as error:
        return [Row("wrong", "annotations", str(error))]
    rows = [Row("there", name, str(count)) for name, count in inventory.counts.items()]
    rows += [Row("warning", "counts", warning) for warning in inventory.warnings(task)]
    if inventory.missing:
        rows.append(Row("missing", "images", missing_message(task, root, inventory.missing)))
    return rows

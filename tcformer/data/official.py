"""What `prepare` has to know about the official dataset of a task.

A task describes its dataset by an instance of `OfficialDataset` in `tcformer/tasks/<task>/official.py`: where the files
come from, which of them it needs, and how they are counted. Downloads are unpacked, checked and reported by
`pipelines.datasets`, in the same way for every task. All paths are POSIX paths below the data root, the folder with the
user's downloads.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcformer.files import sha256_of_file, sha256_of_json

#: Receives the number of bytes processed since its last call.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Archive:
    """An archive as its publisher offers it.

    Its functions run in worker processes, so they must be picklable.

    Attributes:
        name: file name of the download.
        unpacks_to: the folder that its files go to.
        md5: the published checksum, hexadecimal.
        requires: a folder that must exist before the archive is unpacked.
        unpack: replaces plain unpacking: `unpack(archive, folder, root, progress)` writes to the empty folder.
        finish: `finish(archive, folder)` checks or extends the unpacked files before they take their place.
    """

    name: str
    unpacks_to: str
    md5: str | None = None
    requires: str | None = None
    unpack: Callable[[Path, Path, Path, Progress], None] | None = None
    finish: Callable[[Path, Path], None] | None = None

    def holds(self, path: str) -> bool:
        """Whether a path below the data root lies in the folder that the archive unpacks to."""
        return path == self.unpacks_to or path.startswith(f"{self.unpacks_to}/")


@dataclass(frozen=True)
class Origin:
    """Where files come from.

    Attributes:
        title: what the publisher calls them.
        page: address of the publisher's page.
        licence: under which they are published.
        prefixes: beginnings of the paths that come from here.
        archives: the downloads that hold them; empty if they are downloaded as single files.
    """

    title: str
    page: str
    licence: str
    prefixes: tuple[str, ...]
    archives: tuple[Archive, ...] = ()


@dataclass(frozen=True)
class Source:
    """Annotations and the images that they refer to, as the parameters of a task name them.

    Attributes:
        annotations: a file or folder.
        images: the folder that image names are relative to.
        key: the parameter that names them: "options" or "evaluation" (the argument of `OfficialDataset.sources`) and
            the dotted path below it, for instance "evaluation.tests.0".
        optional: whether the task can do without it, so that the user may remove it from the parameters.
        requires: further files that are needed with it.
    """

    annotations: str
    images: str
    key: str
    optional: bool
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequiredPath:
    """A file or folder that a task needs.

    Attributes:
        path: where it must be.
        source: what in the parameters requires it; None if the task always does.
        search_in: a folder in which a file of this name may lie anywhere; archives that unpack below that folder may
            hold it.
    """

    path: str
    source: Source | None = None
    search_in: str | None = None


@dataclass(frozen=True)
class MissingPath:
    """A file or folder that a dataset lacks.

    Attributes:
        path: where it must be.
        source: as of `RequiredPath`.
        reason: why it counts as missing although something of that name exists.
    """

    path: str
    source: Source | None = None
    reason: str = ""


@dataclass
class Inventory:
    """The content of a dataset; its methods add to it.

    Attributes:
        root: the data root.
        identities: SHA-256 by file or folder: of the bytes of an annotation file, of the names and sizes of images.
        counts: number of images, persons or classes, by what is counted.
        missing: images that annotations name and that do not exist or are empty.
        files: paths below the root of all files that the task reads; one that two annotations name may be there twice.
        warnings: what a training can do without, but its user should know.
    """

    root: Path
    identities: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    missing: list[MissingPath] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def add_images(self, folder: Path, names: Iterable[str], source: Source | None = None) -> None:
        """Add the named images of a folder below the root; duplicate names count once."""
        place = folder.relative_to(self.root).as_posix()
        found = []
        for name in sorted(set(names)):
            try:
                size = os.stat(folder / name).st_size
            except OSError:
                size = 0
            if size:
                found.append([name, size])
                self.files.append(f"{place}/{name}")
            else:
                reason = "it is empty" if (folder / name).exists() else ""
                self.missing.append(MissingPath(f"{place}/{name}", source, reason))
        self.identities[place] = sha256_of_json([self.identities.get(place, ""), found])

    def add_file(self, path: Path) -> None:
        """Add a file below the root, or the files of a folder, by their bytes; skip a file that does not exist."""
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            name = file.relative_to(self.root).as_posix()
            self.identities[name] = sha256_of_file(file)
            self.files.append(name)


@dataclass(frozen=True)
class Original:
    """What a required file can be made from.

    Attributes:
        path: file or folder.
        convert: (path, target) writes the required file; it raises UserError if the original is damaged or unsafe.
    """

    path: Path
    convert: Callable[[Path, Path], object]


@dataclass(frozen=True)
class OfficialDataset(ABC):
    """The official dataset of a task.

    Attributes:
        origins: where its files come from; the first one with a fitting prefix counts.
        published_counts: the publishers' numbers, by the names in `Inventory.counts`; others cause a warning.
    """

    origins: tuple[Origin, ...]
    published_counts: Mapping[str, int] = field(default_factory=dict)

    def sources(self, options: Any, evaluation: Any) -> list[Source]:
        """The annotations and images that the parameters name; none for a dataset with a fixed layout.

        Args:
            options: of the task, see `tcformer.tasks.TaskEntry.options`.
            evaluation: of measuring a network, see `tcformer.tasks.TaskEntry.evaluation`.
        """
        return []

    @abstractmethod
    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        """The files and folders that the task needs, besides the images that annotations name."""

    @abstractmethod
    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        """Read all annotations below `root` and check that their images exist.

        Raises:
            UserError: annotations break their format.
        """

    def find_original(self, root: Path, required: RequiredPath, in_archive: bool) -> Original | None:
        """What a required file that does not exist can be made from.

        Args:
            root: the data root.
            required: the file.
            in_archive: whether an archive that may hold the file is at hand; it is unpacked if this returns None.
        """
        return None

    def remaining_jobs(self, root: Path, sources: Sequence[Source]) -> list[Callable[[], None]]:
        """What is left to do when all required files exist, for instance extracting images from videos.

        The jobs are picklable and independent of each other; they run in parallel.
        """
        return []

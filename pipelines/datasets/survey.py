"""The downloads of an official dataset: which files the task needs, where they are, and what is missing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.datasets.key_lines import place_of
from pipelines.layout import PARAMS
from pipelines.params import Params, training_section
from tcformer.data.official import (
    Archive,
    Inventory,
    MissingPath,
    OfficialDataset,
    Origin,
    RequiredPath,
    Source,
)
from tcformer.errors import UserError
from tcformer.tasks import ALL_TASKS

_MOST_LISTED = 10


@dataclass(frozen=True)
class Downloads:
    """The folder with the downloads of a task's official dataset.

    Attributes:
        task: its name.
        recipe: whose parameters name the folder and the sources.
        root: the folder.
        official: what the task says of its dataset.
        sources: what the parameters name below the folder.
    """

    task: str
    recipe: str
    root: Path
    official: OfficialDataset
    sources: tuple[Source, ...]

    def origin_of(self, path: str) -> Origin | None:
        """Where a path below the root comes from; None if only the user's parameters know it."""
        return next((origin for origin in self.official.origins if path.startswith(origin.prefixes)), None)

    def place_of(self, source: Source) -> str:
        """File and line of the parameter that names a source."""
        argument, _, rest = source.key.partition(".")
        sections = {"options": f"{training_section(self.task)}.task", "evaluation": f"evaluate.{self.task}.options"}
        return place_of(f"{self.recipe}.{sections[argument]}.{rest}", PARAMS)

    def take_inventory(self) -> Inventory:
        """Read all annotations and check that their images exist. Raises UserError if they break their format."""
        return self.official.take_inventory(self.root, self.sources)

    def warnings(self, inventory: Inventory) -> list[str]:
        """What the inventory warns of, and where the counts are not the published ones."""
        return inventory.warnings + [
            f"{inventory.counts[name]} {name}, but {expected} are published: good for trials only"
            for name, expected in self.official.published_counts.items()
            if inventory.counts[name] != expected
        ]


def find_downloads(task: str, params: Params) -> Downloads:
    """The downloads that the active recipe names for a task.

    Raises:
        UserError: the task has no official dataset, or the parameters name no existing folder.
    """
    recipe = params.active
    key = f"{params.recipe}.data.{task}"
    official: OfficialDataset | None = ALL_TASKS[task].part("official").OFFICIAL
    if official is None:
        raise UserError(
            f"{place_of(f'{key}.source', PARAMS)}: {key}.source is official, but the task {task} has no official "
            f"dataset: expected generated; set source: generated"
        )
    sources = tuple(official.sources(recipe.training_of(task).task, recipe.evaluation_options_of(task)))
    given = recipe.data_of(task).root
    place = f"{place_of(f'{key}.root', PARAMS)}: {key}.root is"
    if given is None:
        needed = ", ".join(required.path for required in official.required_paths(()))
        raise UserError(
            f"{place} null: expected the folder of the downloads, which contain {needed}; set it (docs/data.md)"
        )
    root = Path(given).expanduser().resolve()
    if not root.is_dir():
        raise UserError(
            f"{place} {root}: expected an existing folder; make it and put the downloads there (docs/data.md)"
        )
    return Downloads(task, params.recipe, root, official, sources)


@dataclass(frozen=True)
class FoundPath:
    """A required file or folder, and what `prepare` has to do for it.

    Attributes:
        required: the file or folder.
        state: "present" in its place, "packed" in an archive, "elsewhere" below the root under its name, "convertible"
            from an original, or "missing".
        found: the archive, the file elsewhere or the original.
        archive: what is known of the archive.
        convert: (original, target) makes the file from the original.
    """

    required: RequiredPath
    state: Literal["present", "packed", "elsewhere", "convertible", "missing"]
    found: Path | None = None
    archive: Archive | None = None
    convert: Callable[[Path, Path], object] | None = None


def survey(downloads: Downloads) -> list[FoundPath]:
    """Find everything that a task needs, by name; no file is read."""
    found = [_find(downloads, required) for required in downloads.official.required_paths(downloads.sources)]
    folders = {path.archive.requires for path in found if path.archive and path.archive.requires}
    return found + [_find(downloads, RequiredPath(folder)) for folder in sorted(folders)]


def _find(downloads: Downloads, required: RequiredPath) -> FoundPath:
    root = downloads.root
    if is_present(root / required.path):
        return FoundPath(required, "present")
    if elsewhere := _find_elsewhere(root, required):
        return FoundPath(required, "elsewhere", elsewhere)
    packed = _find_in_archives(downloads, required)
    original = downloads.official.find_original(root, required, in_archive=packed is not None)
    if original:
        return FoundPath(required, "convertible", original.path, convert=original.convert)
    return packed or FoundPath(required, "missing")


def is_present(path: Path) -> bool:
    """Whether a path is a file, or a folder that is not empty."""
    if not path.is_dir():
        return path.exists()
    with os.scandir(path) as entries:
        return any(True for _ in entries)


def _find_elsewhere(root: Path, required: RequiredPath) -> Path | None:
    """A file of the required name in the root itself, or anywhere in the folder in which it may be searched."""
    name = Path(required.path).name
    if not Path(name).suffix:
        return None
    places = [root / name]
    if required.search_in:
        places += sorted((root / required.search_in).rglob(name))
    return next((place for place in places if place.is_file()), None)


def _find_in_archives(downloads: Downloads, required: RequiredPath) -> FoundPath | None:
    """An archive that has not been unpacked yet and that holds, or may hold, a required file or folder."""
    origin = downloads.origin_of(required.path)
    for archive in origin.archives if origin else ():
        may_hold = required.search_in and archive.unpacks_to.startswith(f"{required.search_in}/")
        if not (archive.holds(required.path) or may_hold) or is_present(downloads.root / archive.unpacks_to):
            continue
        if packed := _find_archive(downloads.root, archive):
            return FoundPath(required, "packed", packed, archive)
    return None


def _find_archive(root: Path, archive: Archive) -> Path | None:
    """An archive in the root, or beside the folder that it unpacks to."""
    places = (root / archive.name, (root / archive.unpacks_to).parent / archive.name)
    return next((place for place in places if place.is_file()), None)


def missing_paths(found: Sequence[FoundPath]) -> list[MissingPath]:
    """What of the required files and folders is missing."""
    return [MissingPath(path.required.path, path.required.source) for path in found if path.state == "missing"]


def check_nothing_missing(downloads: Downloads, missing: Sequence[MissingPath]) -> None:
    """Raise UserError if anything is missing; see `missing_message`."""
    if missing:
        raise UserError(missing_message(downloads, missing))


def missing_message(downloads: Downloads, missing: Sequence[MissingPath]) -> str:
    """What is missing, from where to download it, under which licence, and where to put it."""
    root = downloads.root
    lines = [f"{root}: {len(missing)} of the files and folders that the task {downloads.task} needs are missing:"]
    for path in missing[:_MOST_LISTED]:
        notes = [path.reason] if path.reason else []
        if path.source:
            remove = ": remove that source to train without it" if path.source.optional else ""
            notes.append(f"named at {downloads.place_of(path.source)}{remove}")
        lines.append(f"  {path.path}" + (f" ({'; '.join(notes)})" if notes else ""))
    if len(missing) > _MOST_LISTED:
        lines.append(f"  and {len(missing) - _MOST_LISTED} more")
    origins = {downloads.origin_of(path.path): path.path for path in missing}
    for origin, example in origins.items():
        if origin is None:
            lines.append(f"{example} is named by your parameters only: put it in {root}, or correct its name")
            continue
        names = ", ".join(archive.name for archive in origin.archives)
        what = f"put {names}, or the unpacked folders, in {root}" if names else f"put them in {root} under these names"
        lines.append(f"{origin.title}: download from {origin.page} (licence: {origin.licence}); {what}")
        for archive in origin.archives:
            packed = _find_archive(root, archive)
            if packed and any(archive.holds(path.path) for path in missing):
                lines.append(f"{packed} exists: remove {root / archive.unpacks_to} to have it unpacked again")
    return "\n".join(lines)

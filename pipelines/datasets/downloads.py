"""From a folder of downloads to a dataset in its official layout, and a report on such a folder."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.datasets.archives import check_md5, examine, no_progress, require_space
from pipelines.datasets.mapping import mapping_files
from pipelines.datasets.survey import (
    Downloads,
    FoundPath,
    check_nothing_missing,
    find_downloads,
    missing_message,
    missing_paths,
    survey,
)
from pipelines.datasets.unpacking import checksum, unpack
from pipelines.params import Cluster, Params
from pipelines.running.progress import say
from tcformer.data.official import Inventory
from tcformer.errors import UserError
from tcformer.files import atomic_write


def complete(downloads: Downloads, cluster: Cluster) -> Inventory:
    """Bring downloads to the official layout: unpack, link and convert the files that are not in their places yet.

    Returns:
        The content of the complete dataset.

    Raises:
        UserError: anything is missing (files and archives are searched for before any is changed), damaged or unsafe.
    """
    root, title = downloads.root, f"prepare@{downloads.task}"
    found = survey(downloads)
    check_nothing_missing(downloads, missing_paths(found))
    while any(path.state == "packed" for path in found):  # one archive may lack a file that another one holds
        unpack(root, found, cluster, title)
        found = survey(downloads)
        check_nothing_missing(downloads, missing_paths(found))
    for path in found:
        if path.state in ("elsewhere", "convertible") and path.found:
            target = root / path.required.path
            say(f"{title}: making {target} from {path.found}")
            with _writing(target), atomic_write(target) as part:
                (path.convert or _link)(path.found, part)
    jobs = downloads.official.remaining_jobs(root, downloads.sources)
    if jobs:
        with _writing(root), mapping_files(cluster) as each:
            each(_run, jobs, title=f"{title}: extracting images")
    inventory = downloads.take_inventory()
    check_nothing_missing(downloads, inventory.missing)
    for warning in downloads.warnings(inventory):
        say(f"{title}: warning: {root}: {warning}")
    return inventory


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); allow writing, or free space") from error


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, so that it takes no space; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _run(job: Callable[[], None]) -> None:
    job()


@dataclass(frozen=True)
class Finding:
    """What `check` reports about one file, folder or count.

    Attributes:
        state: "ready" is what `prepare` would unpack, link or convert; with "missing" and "wrong" it would fail.
        subject: the file, folder or count.
        detail: where it was found, or what is wrong; of several lines if it explains what to do.
    """

    state: Literal["present", "ready", "missing", "wrong", "warning"]
    subject: str
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether `prepare` would succeed in spite of it."""
        return self.state not in ("missing", "wrong")


def check(task: str, params: Params) -> list[Finding]:
    """What `prepare` would find for a task; nothing is written.

    Archives with a published checksum are read, which takes a while.
    """
    if params.active.data_of(task).source == "generated":
        return [Finding("ready", "generated images", "no downloads needed")]
    try:
        downloads = find_downloads(task, params)
    except UserError as error:
        return [Finding("missing", "data root", str(error))]
    found = survey(downloads)
    findings = [_finding(path) for path in found] + _check_archives(downloads.root, found)
    if all(path.state == "present" for path in found):
        findings += _check_contents(downloads)
    if missing := missing_paths(found):
        findings.append(Finding("missing", f"{len(missing)} in total", missing_message(downloads, missing)))
    return findings


def report_checks(tasks: Sequence[str], params: Params) -> bool:
    """Print what `check` finds for some tasks: a table, then the long details. Returns whether all is good."""
    findings = [(task, finding) for task in tasks for finding in check(task, params)]
    width = max(len(finding.subject) for _, finding in findings)
    for task, finding in findings:
        detail = "see below" if "\n" in finding.detail else finding.detail
        say(f"{task:9}  {finding.state:7}  {finding.subject:{width}}  {detail}".rstrip())
    for _, finding in findings:
        if "\n" in finding.detail:
            say(f"\n{finding.detail}")
    return all(finding.is_good for _, finding in findings)


def _finding(path: FoundPath) -> Finding:
    detail = f"from {path.found}" if path.found else ""
    if path.state == "present" or path.state == "missing":
        return Finding(path.state, path.required.path, detail)
    return Finding("ready", path.required.path, detail)


def _check_archives(root: Path, found: Sequence[FoundPath]) -> list[Finding]:
    findings, contents = [], []
    for path, archive in {each.found: each.archive for each in found if each.found and each.archive}.items():
        try:
            if archive.md5:
                check_md5(path, archive.md5, checksum(root, path, no_progress))
            contents.append(examine(path))
            checked = ", MD5 correct" if archive.md5 else ""
            findings.append(Finding("ready", path.name, f"{contents[-1].files} files{checked}"))
        except UserError as error:
            findings.append(Finding("wrong", path.name, str(error)))
    try:
        require_space(root, contents)
    except UserError as error:
        findings.append(Finding("wrong", "disk", str(error)))
    return findings


def _check_contents(downloads: Downloads) -> list[Finding]:
    try:
        inventory = downloads.take_inventory()
    except UserError as error:
        return [Finding("wrong", "annotations", str(error))]
    findings = [Finding("present", name, str(count)) for name, count in inventory.counts.items()]
    findings += [Finding("warning", "counts", warning) for warning in downloads.warnings(inventory)]
    if inventory.missing:
        findings.append(Finding("missing", "images", missing_message(downloads, inventory.missing)))
    return findings

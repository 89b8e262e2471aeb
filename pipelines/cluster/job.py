"""What runs on the cluster for `tcformer submit`: `python -m pipelines.cluster.job` in an unpacked package.

Ray unpacks a package for each job and deletes it afterwards. The command runs in a folder of its own that all jobs of
one checkout share, one after the other: so the next job finds the data, DVC's cache and the checkpoints of the last.
"""

import filecmp
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines.adapters.jobs import archive_name, folder_of_results
from pipelines.cluster.package import ORDER, Order
from pipelines.cluster.results import pack, snapshot
from pipelines.driver.lease import only_one
from pipelines.layout import dvc_environment
from pipelines.running.commands import dvc_cache
from pipelines.running.process import Interrupts, noted_interrupts, stage_main
from tcformer.files import atomic_write, temporary_folder

_VERSIONS = 8  # of a file, by which a file that the submitter has not changed is recognised


def main() -> int:
    """Do what the package's order says and return the exit status of its command."""
    package = Path.cwd()
    order = Order.read(package / ORDER)
    return run_order(order, package, temporary_folder("submitted"), folder_of_results())


def run_order(order: Order, package: Path, place: Path, results: Path) -> int:
    """Run an order's command in its checkout and pack the results.

    Args:
        order: what to do.
        package: folder with the files that were sent.
        place: folder of all checkouts.
        results: folder for the archive, from which the submitter can read.

    Returns:
        The exit status of the command, or 130 if the job was stopped.

    Raises:
        UserError: another job of the same checkout runs.
    """
    checkout = place / order.checkout
    path = place / f"{order.checkout}.json"
    with noted_interrupts() as interrupts, only_one(place / f"{order.checkout}.lock", "a job of this checkout"):
        notes = Notes.read(path)
        update_checkout(package, checkout, order.files, notes.sent)
        notes.learn(order.files)
        notes.sent = list(order.files)
        notes.write(path)
        environment = environment_of_command(checkout)
        if order.doctor:
            status = run([sys.executable, "-m", "stages.cli", "doctor"], checkout, environment, interrupts)
            if status and interrupts.first is not None:
                return status
            if status:
                print("nothing was started: solve the problems, or submit with --no-doctor", flush=True)
                return status
        before = snapshot(checkout)
        print(f"$ {shlex.join(order.command)}", flush=True)
        status = run(order.command, checkout, environment, interrupts)
        results.mkdir(parents=True, exist_ok=True)
        packed = pack(order, checkout, before, notes.known, dvc_cache(checkout), results / archive_name(order.identity))
        if notes.archive and notes.archive != archive_name(order.identity):
            (results / notes.archive).unlink(missing_ok=True)
        notes.archive = archive_name(order.identity)
        notes.learn(packed.files)
        notes.write(path)
    return status


@dataclass
class Notes:
    """What is remembered from one job of a checkout to the next.

    Attributes:
        sent: paths of the files of the last package.
        known: path -> hashes of versions that the submitter has, or may have by fetching results.
        archive: of the last job's results.
    """

    sent: list[str] = field(default_factory=list)
    known: dict[str, list[str]] = field(default_factory=dict)
    archive: str = ""

    @classmethod
    def read(cls, path: Path) -> "Notes":
        """The notes in a file, which may be missing."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()

    def write(self, path: Path) -> None:
        """Keep the notes."""
        with atomic_write(path) as part:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def learn(self, files: Mapping[str, str]) -> None:
        """Note versions of files by their hashes; of each file the last few."""
        for name, sha256 in files.items():
            self.known[name] = [*(other for other in self.known.get(name, []) if other != sha256), sha256][-_VERSIONS:]


def update_checkout(package: Path, checkout: Path, names: Iterable[str], before: Iterable[str]) -> None:
    """Make the sent files of a checkout those of a package; all else in it stays.

    Files that are equal keep their times, so that DVC does not hash them again.

    Args:
        package: folder with the files.
        checkout: that folder; it may be missing.
        names: relative paths of the files that are sent now.
        before: of those that were sent the last time.
    """
    checkout.mkdir(parents=True, exist_ok=True)
    for name in sorted(set(before) - set(names)):
        (checkout / name).unlink(missing_ok=True)
    for name in names:
        source, target = package / name, checkout / name
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    shutil.rmtree(checkout / ".git", ignore_errors=True)
    shutil.copytree(package / ".git", checkout / ".git")


def environment_of_command(checkout: Path) -> dict[str, str]:
    """The command uses this environment's programs and the checkout's code."""
    tools = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")]))
    code = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **dvc_environment(checkout), "PATH": tools, "PYTHONPATH": code}


def run(command: list[str], folder: Path, environment: dict[str, str], interrupts: Interrupts) -> int:
    """Run a command to its end and return its exit status; 130 if the job was stopped meanwhile, or before.

    Whoever stops the job sends SIGINT to all its processes, as a terminal does: so the command has the signal already.
    """
    if interrupts.first is not None:
        return 128 + interrupts.first
    try:
        process = subprocess.Popen(command, cwd=folder, env=environment)
    except OSError as error:
        print(f"error: {command[0]}: cannot be started ({error.strerror}): expected a program", flush=True)
        return 127
    status = process.wait()
    if interrupts.first is not None:
        return 128 + interrupts.first
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    stage_main(main)

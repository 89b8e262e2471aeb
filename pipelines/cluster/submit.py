"""Submit a command to a Ray cluster, follow it, and bring its results back."""

import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.adapters.jobs import Job, Jobs, archive_name
from pipelines.cluster.package import Order, checkout_key, hashes, held_outputs, sent_files, write_package
from pipelines.cluster.results import describe, unpack
from pipelines.layout import ROOT
from pipelines.running.commands import dvc_cache
from pipelines.running.process import noted_interrupts
from pipelines.running.progress import say
from tcformer.errors import UserError

ENTRYPOINT = "exec python -m pipelines.cluster.job"  # exec: signals reach it and not a shell
INTERRUPTED = 130
#: Variables that go with a job where they are set here.
FORWARDED = ("MLFLOW_TRACKING_URI",)


@dataclass(frozen=True)
class SubmitOptions:
    """Options of a submission.

    Attributes:
        detach: do not wait for the end.
        doctor: check the cluster first.
        largest_output: bytes of the largest output that comes back.
        environment: variables of the job.
    """

    detach: bool = False
    doctor: bool = True
    largest_output: int = 2_000_000_000
    environment: Mapping[str, str] = field(default_factory=dict)


def environment_of(variables: Sequence[str]) -> dict[str, str]:
    """Name -> value of variables given as NAME=VALUE, or as NAME for the value that this process has.

    Raises:
        UserError: a name without a value is not set here.
    """
    found = {}
    for variable in variables:
        name, separate, value = variable.partition("=")
        if not separate and name not in os.environ:
            raise UserError(f"--env {name}: expected a variable that is set in this shell, or {name}=VALUE")
        found[name] = value if separate else os.environ[name]
    return found


def submit(jobs: Jobs, command: Sequence[str], options: SubmitOptions, root: Path = ROOT) -> int:
    """Submit a command with this commit and its changes; returns its exit status, or 0 if it is not waited for.

    Raises:
        UserError: what cannot be packed or submitted.
    """
    identity = f"tcformer-{time.strftime('%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    cache = dvc_cache(root)
    order = Order(
        identity=identity,
        checkout=checkout_key(root),
        command=list(command),
        files=hashes(sent_files(root), root),
        held=held_outputs(root / "dvc.lock", cache) if cache else [],
        largest_output=options.largest_output,
        doctor=options.doctor,
    )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package.zip"
        write_package(order, package, root)
        print(
            f"{identity}: {len(order.files)} files, {package.stat().st_size / 1e6:.1f} MB, to {jobs.address}",
            flush=True,
        )
        forwarded = {name: os.environ[name] for name in FORWARDED if os.environ.get(name)}
        jobs.submit(identity, ENTRYPOINT, package, {**forwarded, **options.environment}, shlex.join(command))
    if options.detach:
        print(f"follow it with `tcformer jobs follow {identity}`", flush=True)
        return 0
    return follow(jobs, identity, root)


def follow(jobs: Jobs, identity: str, root: Path = ROOT) -> int:
    """Print a job's log until it ends, bring its results back, return its exit status.

    The first Ctrl-C stops the job: a training takes a checkpoint, and what is finished comes back. A second one leaves
    the job alone.

    Raises:
        UserError: there is no such job, or the connection is lost for good.
        Interrupted: after a second Ctrl-C.
    """
    job = jobs.job(identity)
    with noted_interrupts() as interrupts:
        asked = False
        for text in jobs.log(identity):
            if text:
                sys.stdout.write(text)
                sys.stdout.flush()
            if interrupts.first is not None and not asked:
                asked = True
                print(
                    f"stopping {identity}; once more to leave it alone: `tcformer jobs follow {identity}`", flush=True
                )
                jobs.stop(identity)
        job = jobs.job(identity)
    if job.exit_status is None and job.status == "FAILED":  # the command has not started, or Ray has lost it
        say(f"{identity} failed: {' '.join(job.message.split())[:1000]}", as_error=True)
    else:
        fetch(jobs, job, root)
    return exit_status(job)


def exit_status(job: Job) -> int:
    """The exit status for a job that is over: that of its command, 130 if it was stopped."""
    if job.status == "STOPPED":
        return INTERRUPTED
    return job.exit_status if job.exit_status is not None else int(job.status != "SUCCEEDED")


def fetch(jobs: Jobs, job: Job, root: Path = ROOT) -> bool:
    """Bring the results of a job that is over to this checkout; False, with a sentence, if there are none.

    Raises:
        UserError: it still runs, or what came is damaged.
    """
    if not job.is_over:
        raise UserError(f"{job.identity} is {job.status}: expected a job that has ended; use `tcformer jobs follow`")
    with tempfile.TemporaryDirectory(dir=_same_disk(root)) as folder:
        archive = Path(folder) / "results.tar"
        if not jobs.download(job, archive_name(job.identity), archive):
            print(
                f"no results of {job.identity}: it packed none, a later job of its checkout has replaced them, or its "
                "node is gone",
                file=sys.stderr,
            )
            return False
        for line in describe(unpack(archive, job.identity, root)):
            print(line, flush=True)
    return True


def _same_disk(root: Path) -> Path:
    """A folder that git ignores and that is on the disk of the results, which may be large."""
    folder = root / "runs" / "submitted"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""The commands of `tcformer` for clusters: submit, jobs, doctor."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from pipelines.running.progress import say

if TYPE_CHECKING:
    from pipelines.adapters.jobs import Jobs

# Each command imports what it needs when it runs, so that `--help` appears at once.

_ADDRESS = click.option(
    "--address",
    help="The head's dashboard, such as http://head:8265.  [default: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265]",
)


def _jobs(address: str | None) -> Jobs:
    from pipelines.adapters.jobs import Jobs, dashboard_address

    return Jobs(dashboard_address(address))


@click.command(
    short_help="Run a command on a Ray cluster.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@_ADDRESS
@click.option("--detach", is_flag=True, help="Do not wait for the end; `tcformer jobs follow` shows the log later.")
@click.option("--doctor/--no-doctor", default=True, help="Whether to check the cluster first.  [default: doctor]")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME[=VALUE]",
    help="Variable of the job and of its workers; without a value, that of this shell. Whoever may read the cluster's "
    "jobs can read it.",
)  # fmt: skip
@click.option(
    "--largest-output", default=2.0, show_default=True, metavar="GB",
    type=click.FloatRange(min=0), help="Larger outputs stay on the cluster.",
)  # fmt: skip
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(
    address: str | None,
    detach: bool,
    doctor: bool,
    variables: tuple[str, ...],
    largest_output: float,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND on a Ray cluster with this commit and the uncommitted changes, and bring its results back.

    The log is shown while it runs. Ctrl-C stops the job: a training takes a checkpoint, and the same command resumes
    it. The exit status is that of COMMAND, 130 after Ctrl-C. docs/clusters.md says what is sent and what comes back.

    \b
    tcformer submit --address http://head:8265 -- dvc repro
    tcformer submit --detach -- python -m stages.finetune face
    tcformer submit --env AWS_ENDPOINT_URL=http://minio:9000 -- dvc repro
    """
    from pipelines.cluster.submit import SubmitOptions, environment_of
    from pipelines.cluster.submit import submit as send

    options = SubmitOptions(detach, doctor, round(largest_output * 1e9), environment_of(variables))
    return send(_jobs(address), command, options)


@click.group(short_help="List, follow, stop and fetch submitted jobs.")
def jobs() -> None:
    """The jobs of a Ray cluster that `tcformer submit` or `ray job submit` started."""


@jobs.command("list", short_help="Show all jobs.")
@_ADDRESS
def list_jobs(address: str | None) -> None:
    """Show all jobs of the cluster: id, status, start, duration, command."""
    for job in _jobs(address).all():
        started = time.strftime("%m-%d %H:%M", time.localtime(job.started)) if job.started else "-"
        seconds = round((job.ended or time.time()) - job.started) if job.started else 0
        duration = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        say(f"{job.identity:32} {job.status:9} {started:11} {duration:>9}  {job.command}")


@jobs.command(short_help="Show a job's log until it ends, and bring its results back.")
@_ADDRESS
@click.argument("identity", metavar="ID")
def follow(address: str | None, identity: str) -> int:
    """Show the log of the job ID from its beginning until it ends, and bring its results back; as `submit` does."""
    from pipelines.cluster.submit import follow

    return follow(_jobs(address), identity)


@jobs.command(short_help="Stop a job; a training takes a checkpoint.")
@_ADDRESS
@click.argument("identity", metavar="ID")
def stop(address: str | None, identity: str) -> None:
    """Stop the job ID. A training takes a checkpoint first; `tcformer jobs fetch` brings what is finished."""
    if _jobs(address).stop(identity):
        print(f"{identity} stops: a training takes a checkpoint first")
    else:
        print(f"{identity} has ended already")


@jobs.command(short_help="Bring the results of a job back.")
@_ADDRESS
@click.argument("identity", metavar="ID")
def fetch(address: str | None, identity: str) -> int:
    """Bring the results of the job ID, which has ended, to this checkout."""
    from pipelines.cluster.submit import fetch

    cluster = _jobs(address)
    return 0 if fetch(cluster, cluster.job(identity)) else 1


@click.command(short_help="Check this machine or every node of a cluster.")
def doctor() -> int:
    """Check every node of the Ray that RAY_ADDRESS or cluster.address names; without one, this machine.

    Versions, GPUs, network interfaces, connections between the nodes, clocks, cluster.storage, disks, shared memory and
    the MLflow server. Each problem is named with its fix, and the exit status is then 1.

    \b
    tcformer doctor
    tcformer submit --no-doctor -- python -m stages.cli doctor    # where only the dashboard can be reached
    """
    from pipelines.cluster.doctor import examine
    from pipelines.layout import PARAMS
    from pipelines.params import load_params

    found = examine(load_params(PARAMS))
    for finding in found:
        say(str(finding))
    problems = sum(bool(finding.fix) for finding in found)
    print(f"{problems} problems" if problems != 1 else "1 problem", file=sys.stderr)
    return int(problems > 0)


COMMANDS = (submit, jobs, doctor)

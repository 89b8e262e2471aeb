"""The adapter to Ray's jobs: submit a package, follow its log, stop it, read a file that it has left.

All of it needs only the address of the head's dashboard and a token: no port of Ray itself, no storage.
"""

import asyncio
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pipelines.adapters.ray_environment import prepare_environment, require_token
from pipelines.running.redaction import redacted
from tcformer.errors import UserError
from tcformer.files import atomic_write

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.3
AGENT_SECONDS = 60.0  # for which a head that has just started may not take jobs yet
#: For a checkpoint and for packing the results, after which Ray kills a job that was asked to stop.
STOP_SECONDS = 600
RESULTS = "tcformer-results"  # folder below Ray's logs, the only files of a node that the dashboard can send
_LOG_OF_JOB = "job-driver-"
_COMMAND = "tcformer_command"  # of the job's metadata
_OVER = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Job:
    """A submitted job as Ray knows it.

    Attributes:
        identity: Ray's submission id.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        command: what was submitted.
        started: seconds since 1970, or None.
        ended: the same.
        exit_status: of the command, where it ended by itself.
        message: of Ray.
        node: id of the node that it ran on.
    """

    identity: str
    status: str
    command: str
    started: float | None = None
    ended: float | None = None
    exit_status: int | None = None
    message: str = ""
    node: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in _OVER


def folder_of_results() -> Path:
    """Where a job puts what its submitter shall read: Ray writes the job's output to a file in its folder of logs.

    Raises:
        UserError: this process is no job of Ray.
    """
    log = Path(os.readlink("/proc/self/fd/1"))
    if not log.name.startswith(_LOG_OF_JOB):
        raise UserError("this program runs in a job that `tcformer submit` sent: expected that Ray started it")
    return log.parent / RESULTS


def archive_name(identity: str) -> str:
    """Name of the archive with a job's results in that folder."""
    return f"{identity}.tar"


def dashboard_address(named: str | None) -> str:
    """The address of a dashboard: the named one, that of RAY_API_SERVER_ADDRESS, or this machine's.

    Raises:
        UserError: it is not an address of a dashboard.
    """
    address = named or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or not (port or parts.scheme == "https"):
        raise UserError(
            f"--address {redacted(address)!r}: expected the address of the head's dashboard, such as http://head:8265"
        )
    return address.rstrip("/")


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of the dashboard, see `dashboard_address`.

    Raises:
        UserError: nothing listens there, the token is missing or wrong, the Ray is of another version.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        prepare_environment(local=False)
        parts = urlsplit(address)
        if parts.scheme == "http":
            require_token(address)
        host, port = parts.hostname or "", parts.port or 443
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(
                f"nothing answers at {redacted(address)} ({error.strerror or error}): expected the dashboard of a Ray "
                "head; start one with `ray start --head`, or reach it through `ssh -L 8265:127.0.0.1:8265 HEAD`"
            ) from None
        # The client prefers these to the address that it is given.
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        import ray
        from ray.job_submission import JobSubmissionClient

        for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        with self._explained():
            self._client: JobSubmissionClient = JobSubmissionClient(address)
            answer = self._client._do_request("GET", "/api/version").json()
        theirs = str(answer.get("ray_version", "an unknown version"))
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise UserError(
                f"the Ray at {redacted(address)} is version {theirs}, and this environment has {ray.__version__}: "
                "expected the same on both sides; install this project's environment on the cluster (docs/clusters.md)"
            )

    @contextmanager
    def _explained(self, identity: str = "") -> Iterator[None]:
        """Turn the errors of Ray's client into sentences."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            wrong = "wrong" if "403" in str(error) or "nvalid" in str(error) else "missing"
            raise UserError(
                f"the Ray at {redacted(self.address)} refuses the token ({wrong}): expected the token of its head; set "
                "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that contains it"
            ) from None
        except (requests.exceptions.RequestException, ConnectionError) as error:
            raise UserError(
                f"{redacted(self.address)} does not answer as a Ray dashboard ({type(error).__name__}): expected the "
                "address of the head's dashboard, such as http://head:8265"
            ) from None
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if identity and "404" in text:
                raise UserError(
                    f"no job {identity} at {redacted(self.address)}: expected an id that `tcformer jobs list` shows"
                ) from None
            raise UserError(f"the Ray at {redacted(self.address)} refuses: {text[:300]}") from None

    def submit(
        self, identity: str, entrypoint: str, package: Path, environment: Mapping[str, str], command: str
    ) -> None:
        """Send a package and start a job in it.

        Args:
            identity: of the job.
            entrypoint: command line for the shell.
            package: a zip file.
            environment: variables of the job and of its workers.
            command: what `all` shows.
        """
        stop = {
            # To all processes of the job, as Ctrl-C in a terminal: a training takes its checkpoint.
            "RAY_JOB_STOP_SIGNAL": "SIGINT",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        }
        deadline = time.monotonic() + AGENT_SECONDS
        with self._explained():
            while True:
                try:
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=identity,
                        runtime_env={"working_dir": str(package), "env_vars": {**environment, **stop}},
                        metadata={_COMMAND: command},
                    )
                    return
                except RuntimeError as error:  # Ray has no type for it
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)

    def job(self, identity: str) -> Job:
        """A job as it is now."""
        with self._explained(identity):
            return _job(self._client.get_job_info(identity))

    def all(self) -> list[Job]:
        """All submitted jobs, the newest last."""
        with self._explained():
            found = [_job(about) for about in self._client.list_jobs() if about.submission_id]
        return sorted(found, key=lambda job: job.started or 0)

    def stop(self, identity: str) -> bool:
        """Ask a job to stop; False if it was over already."""
        with self._explained(identity):
            return bool(self._client.stop_job(identity))

    def log(self, identity: str) -> Iterator[str]:
        """The log of a job from its beginning, piece by piece until it ends; "" now and then where nothing comes."""
        pieces: queue.Queue[str | BaseException | None] = queue.Queue()
        threading.Thread(target=lambda: asyncio.run(self._tail(identity, pieces)), daemon=True).start()
        while True:
            try:
                piece = pieces.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield ""
                continue
            if piece is None:
                return
            if isinstance(piece, BaseException):
                with self._explained(identity):
                    raise piece
            yield piece

    async def _tail(self, identity: str, pieces: "queue.Queue[str | BaseException | None]") -> None:
        """Put the log into a queue; a connection that breaks is made again, and what was there is skipped."""
        seen, failures = 0, 0
        while True:
            skip = seen
            try:
                async for text in self._client.tail_job_logs(identity):
                    new = text[skip:]
                    skip = max(0, skip - len(text))
                    seen += len(new)
                    failures = 0
                    pieces.put(new)
                job = await asyncio.to_thread(self.job, identity)
                if job.is_over:
                    pieces.put(None)
                    return
            except Exception as error:  # those of aiohttp and of Ray
                failures += 1
                if failures > 5:
                    pieces.put(error if isinstance(error, UserError) else RuntimeError(str(error)))
                    return
            await asyncio.sleep(POLL_SECONDS * 2**failures)

    def download(self, job: Job, name: str, target: Path) -> bool:
        """Copy a file that a job has put into `folder_of_results` to `target`; False if there is none."""
        if not job.node:
            return False
        query = {"node_id": job.node, "filename": f"{RESULTS}/{name}", "lines": -1, "timeout": 24 * 3600}
        with self._explained():
            # Ray's client has no public method for files, and this one adds the token.
            answer = self._client._do_request("GET", f"/api/v0/logs/file?{urlencode(query)}", stream=True)
            if answer.status_code != 200:
                return False
            with answer, atomic_write(target) as part, part.open("wb") as stream:
                for block in answer.iter_content(1 << 20):
                    stream.write(block)
        return True


def _job(about: Any) -> Job:  # noqa: ANN401 - Ray's own class has no types here
    return Job(
        about.submission_id or "",
        str(getattr(about.status, "value", about.status)),
        (about.metadata or {}).get(_COMMAND) or about.entrypoint,
        about.start_time / 1000 if about.start_time else None,
        about.end_time / 1000 if about.end_time else None,
        about.driver_exit_code,
        about.message or "",
        about.driver_node_id,
    )

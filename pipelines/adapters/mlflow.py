"""The MLflow adapter. Only the driver uses it, and no training ever waits for it.

Records are first written to a journal file on this machine; a thread sends the journal to MLflow. Records that the
server has not accepted when a stage ends stay in the journal, and the next stage sends them.
"""

import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, SupportsFloat, TypeGuard

from pipelines.layout import home

FLUSH_SECONDS = 20.0  # how long a stage that is done waits for a slow server
RETRY_SECONDS = 2.0
LONGEST_PARAMETER = 6000  # MLflow cuts longer ones
KEY = "tcformer.training"  # the tag by which later stages find a training's run


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the repository's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri()


def default_uri() -> str:
    """A SQLite file in the repository's folder."""
    # SQLAlchemy decodes an address, and cuts it at a question mark.
    path = str(home() / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


def legal_name(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced: "AP@0.5" becomes "AP_0.5"."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Whether a value is a number of any type, NumPy's among them; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


class Run:
    """The MLflow run of one training, opened anew or, by its key, continued by a resumed training or a later stage.

    Args:
        key: identity of the training; the run is found by it.
        name: shown in MLflow.
        experiment: MLflow experiment.
        journals: folder of the journals.
        parameters: nested parameters of the run; logged once, when it is created.
        tags: further tags.
    """

    def __init__(
        self, key: str, name: str, experiment: str, journals: Path, parameters: dict[str, Any], tags: dict[str, str]
    ) -> None:
        journals.mkdir(parents=True, exist_ok=True)
        self._leftovers = sorted(journals.glob("*.jsonl"))
        self._path = journals / f"{time.time_ns()}.jsonl"
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._uri = tracking_uri()  # a thread that outlives its run keeps that run's server
        self._write(
            {
                "do": "open",
                "key": key,
                "name": name,
                "experiment": experiment,
                "parameters": {k: str(v)[:LONGEST_PARAMETER] for k, v in flatten(parameters).items()},
                "tags": {**tags, KEY: key},
            }
        )
        self._sender = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self._sender.start()

    def metrics(self, values: Mapping[str, object], step: int = 0) -> None:
        """Record the finite numbers among `values`.

        Texts and nulls are no metrics, and for infinities and NaN MLflow would store a made-up number.
        """
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        finite = {legal_name(name): value for name, value in numbers.items() if math.isfinite(value)}
        self._write({"do": "metrics", "values": finite, "step": step, "time": int(time.time() * 1000)})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file. It must stay where it is until it is sent."""
        self._write({"do": "artifact", "path": str(path), "folder": folder})

    def close(self, status: str = "FINISHED") -> None:
        """End the run ("FINISHED", "FAILED" or "KILLED") and wait a little for the server to take everything."""
        self._write({"do": "close", "status": status})
        self._closing.set()
        self._sender.join(FLUSH_SECONDS)
        if self._path.exists():
            print(
                f"MLflow at {self._uri} has not taken everything: the rest waits in {self._path} and is sent by "
                "the next stage that runs",
                file=sys.stderr,
            )

    def _write(self, record: dict[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record) + "\n")

    def _send(self) -> None:
        """Body of the sending thread: earlier journals first, then this one until it is closed."""
        for path in self._leftovers:
            if _Sender(path, self._uri).send():
                path.unlink(missing_ok=True)
        sender = _Sender(self._path, self._uri)
        while not self._closing.is_set():
            sender.send()
            self._closing.wait(RETRY_SECONDS)
        deadline = time.monotonic() + FLUSH_SECONDS
        while time.monotonic() < deadline:
            if sender.send():
                self._path.unlink(missing_ok=True)
                return
            time.sleep(RETRY_SECONDS)


class _Sender:
    """Replays one journal; remembers how far it came."""

    def __init__(self, path: Path, uri: str) -> None:
        self._path = path
        self._uri = uri
        self._sent = 0
        self._run = ""
        self._client: Any = None
        self._reported = ""

    def send(self) -> bool:
        """Send the records not sent yet; False when the server did not take one, which the next call tries again."""
        try:
            # What follows the last line's end is still being written, or was cut short by a crash.
            lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
            for line in lines[self._sent :]:
                record = json.loads(line)
                getattr(self, f"_{record.pop('do')}")(**record)
                self._sent += 1
            return True
        except Exception as error:  # whatever MLflow raises: its server's faults must not become ours
            reason = str(error).split("\n")[0] or repr(error)
            if reason != self._reported:
                print(f"MLflow: {reason}", file=sys.stderr)
            self._reported = reason
            return False

    def _open(self, key: str, name: str, experiment: str, parameters: dict[str, str], tags: dict[str, str]) -> None:
        # A server that is down must not hold the thread for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        import mlflow
        from mlflow.entities import Param, RunTag

        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = mlflow.MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(experiment)
        # Beside the database; a server has a place of its own.
        place = (home() / "mlruns").as_uri() if self._uri == default_uri() else None
        identity = found.experiment_id if found else self._client.create_experiment(experiment, place)
        runs = self._client.search_runs([identity], f"tags.`{KEY}` = '{key}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(identity, run_name=name).info.run_id
        self._client.log_batch(
            self._run,
            params=[Param(legal_name(name), value) for name, value in parameters.items()],
            tags=[RunTag(legal_name(name), value) for name, value in tags.items()],
        )

    def _metrics(self, values: dict[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        self._client.log_batch(self._run, metrics=[Metric(name, value, time, step) for name, value in values.items()])

    def _artifact(self, path: str, folder: str) -> None:
        if Path(path).exists():
            self._client.log_artifact(self._run, path, folder or None)

    def _close(self, status: str) -> None:
        self._client.set_terminated(self._run, status)

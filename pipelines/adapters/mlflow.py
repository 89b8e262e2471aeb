"""The MLflow adapter. Only the driver uses it, and no training ever waits for it.

Records are first written to a journal file on this machine; a thread sends the journal to MLflow. Records that the
server has not accepted when a stage ends stay in the journal, and the next stage sends them. A process holds the lock
file of its journal for as long as it may write or send it, so that no other process takes it for a leftover.
"""

import inspect
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, SupportsFloat, TypeGuard
from urllib.parse import unquote

from filelock import FileLock, Timeout

from pipelines.dotted import leaves
from pipelines.layout import home
from pipelines.running.execution import Execution
from pipelines.running.progress import say
from pipelines.running.redaction import redacted
from tcformer.files import sha256_of_file
from tcformer.tasks import ALL_TASKS

FLUSH_SECONDS = 20.0  # how long a stage that is done waits for a slow server
FIRST_SECONDS = 10.0  # before the first record is sent: importing MLflow would slow the start of the workers
DEAD_SECONDS = 4.5  # how long it waits for a server that does not answer at all
RETRY_SECONDS = 2.0
LONGEST_PARAMETER = 6000  # MLflow cuts longer ones
LONGEST_DIGEST = 36  # of a dataset; MLflow refuses longer ones
MOST_METRICS = 1000  # that MLflow takes in one request
MOST_PARAMETERS = 100  # the same for parameters and for tags
SENT = "sent"  # beside copies of a journal's files: how many of its lines had been sent
REFUSED = "refused.txt"  # beside the journals: records that MLflow refused
KEY = "tcformer.training"  # the tag by which later stages find a training's run
JOURNAL = "tcformer.journal"  # the tag by which a journal that is sent again finds its run
EXECUTION = "tcformer.execution"  # the tag of the parent run of an execution of the graph
SHARED_TAGS = ("recipe", "git.revision", "dvc.experiment")  # of all stages of an execution
PARENT = "mlflow.parentRunId"
WEIGHTS = "tcformer.weights"  # the tag of a logged model: SHA-256 of its file
LOADER = "pipelines.prediction.serving"  # the module by which MLflow loads a logged model
SYSTEM_SECONDS = 10.0  # between two measurements of the machine
KIND = "mlflow.experimentKind"  # without it, MLflow opens an experiment on a page for language models

Mode = Literal["begin", "continue", "add"]

#: What a logged model takes for a picture; what it returns is in the `columns` of its task's predictor.
INPUT_COLUMNS = {"image": ("binary", 0), "boxes": ("double", 2)}


@dataclass(frozen=True)
class DatasetUsed:
    """A dataset that a run has read.

    Attributes:
        name: shown in MLflow.
        sha256: of its content.
        place: folder of its files.
        context: what it was used for: "training", "evaluation".
    """

    name: str
    sha256: str
    place: str
    context: str


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the repository's folder.

    A relative path means the repository's folder, also for an experiment that DVC runs in a copy of the repository; `~`
    is the home folder.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return default_uri()
    if match := re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:)(.+)", uri):
        return f"{match[1]}{_database_path(match[2])}"
    if match := re.fullmatch(r"file:(?!/)(.+)", uri):
        return (home() / os.path.expanduser(unquote(match[1]))).as_uri()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) or uri in ("databricks", "databricks-uc", "uc"):
        return uri
    return str(home() / os.path.expanduser(uri))


def runs_page(server: str, experiment: str) -> str:
    """Address of an experiment's table of runs.

    MLflow 3 shows pages for language models first, whatever the experiment's kind, unless the address says otherwise.
    No setting of the server changes that.

    Args:
        server: its address.
        experiment: id of the experiment.
    """
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"


def default_uri() -> str:
    """A SQLite file in the repository's folder."""
    return f"sqlite:///{_database_path('mlflow.db')}"


def _database_path(given: str) -> str:
    """The absolute path in the address of a database; `given` is what an address has: encoded, with options."""
    begins_at_home = given.startswith("~/")
    folder = os.path.expanduser("~") if begins_at_home else str(home())
    # SQLAlchemy decodes an address, and cuts it at a question mark.
    encoded = folder.replace("%", "%25").replace("?", "%3F")
    return f"{encoded}/{given.removeprefix('~/') if begins_at_home else given}"


def _artifacts_place(uri: str) -> str | None:
    """Where a new experiment keeps its files: beside a SQLite database; None if MLflow's server has a place for them.

    MLflow itself takes the folder in which a process happens to run.
    """
    if match := re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri):
        return (Path(unquote(match[1])).absolute().parent / "mlruns").as_uri()
    return None


def legal_name(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced: "AP@0.5" becomes "AP_0.5"."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Whether a value is a number of any type, NumPy's among them; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _now() -> int:
    """The time as MLflow counts it: milliseconds since 1970."""
    return int(time.time() * 1000)


class Run:
    """The MLflow run of one training, opened anew or, by its key, continued by a resumed training or a later stage.

    Args:
        key: identity of the training; the run is found by it.
        name: shown in MLflow.
        experiment: MLflow experiment.
        journals: folder of the journals.
        parameters: nested parameters of the run; logged once, when it is created.
        tags: further tags.
        mode: what happens if there is a run with this key. "begin": a new run, unless that one has no metrics yet.
            "continue": that run goes on; a finished one gets records but keeps its status and its end. "add": it gets
            records and keeps both in any case, so that a later stage does not stretch a training's duration.
        datasets: that the run reads.
        execution: of the graph; a new run becomes a child of its run.
        watches_machine: whether the load of this machine is recorded, as MLflow's system metrics.
    """

    def __init__(
        self,
        key: str,
        name: str,
        experiment: str,
        journals: Path,
        parameters: dict[str, Any],
        tags: dict[str, str],
        *,
        mode: Mode = "continue",
        datasets: Sequence[DatasetUsed] = (),
        execution: Execution | None = None,
        watches_machine: bool = False,
    ) -> None:
        journals.mkdir(parents=True, exist_ok=True)
        self._leftovers = sorted(journals.glob("*.jsonl"))
        self._path = journals / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._file_lock = _lock_of(self._path)
        self._file_lock.acquire(timeout=0)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._uri = tracking_uri()  # a thread that outlives its run keeps that run's server
        self._pulse = _Pulse()
        self._sender = _Sender(self._path, self._uri, self._pulse, self._given_up)
        self._write(
            {
                "do": "open",
                "key": key,
                "name": name,
                "experiment": experiment,
                "parameters": {k: str(v)[:LONGEST_PARAMETER] for k, v in leaves(parameters).items()},
                "tags": {**tags, KEY: key},
                "mode": mode,
                "time": _now(),
                "datasets": [asdict(dataset) for dataset in datasets],
                "execution": asdict(execution) if execution else None,
            }
        )
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self._thread.start()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_machine, name="system metrics", daemon=True)
        if watches_machine:
            self._watch.start()

    def metrics(self, values: Mapping[str, object], step: int = 0) -> None:
        """Record the finite numbers among `values`.

        Texts and nulls are no metrics, and for infinities and NaN MLflow would store a made-up number.
        """
        if finite := _finite(values):
            self._write({"do": "metrics", "values": finite, "step": step, "time": _now()})

    def headlines(self, values: Mapping[str, object]) -> None:
        """Record the few measures that runs are compared by, also in the run of the execution of the graph."""
        if finite := _finite(values):
            self._write({"do": "headlines", "values": finite, "time": _now()})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file. It must stay where it is until `close` returns."""
        modified = path.stat().st_mtime_ns if path.exists() else None
        self._write({"do": "artifact", "path": str(path.absolute()), "folder": folder, "modified": modified})

    def model(self, path: Path, task: str, registered: str | None = None) -> None:
        """Record a weights file as a model that MLflow can load and serve. The file must stay as for `artifact`.

        Args:
            path: the safetensors file.
            task: what the network predicts.
            registered: name in the model registry, of which it becomes a new version; None: it is not registered.
        """
        modified, sha256 = path.stat().st_mtime_ns, sha256_of_file(path)
        about = {"path": str(path.absolute()), "modified": modified, "sha256": sha256}
        self._write({"do": "model", "task": task, "registered": registered, **about})

    def close(self, status: str = "FINISHED") -> None:
        """End the run ("FINISHED", "FAILED" or "KILLED") and wait a little for the server to take everything.

        Files that have not been sent are copied beside the journal, because DVC and later trainings replace them.
        """
        self._ended.set()
        if self._watch.is_alive():  # it must not write to a journal that has been sent and removed
            self._watch.join()
        self._write({"do": "close", "status": status, "time": _now()})
        self._closing.set()
        started = time.monotonic()
        while self._thread.is_alive():
            now = time.monotonic()
            dead = self._uri.startswith("http") and self._pulse.silence(started) > DEAD_SECONDS
            if dead or now - started > FLUSH_SECONDS:
                break
            self._thread.join(0.1)
        self._given_up.set()
        if self._path.exists():
            _keep_files(self._path, self._sender.lines)
            print(
                f"MLflow at {redacted(self._uri)} has not accepted everything: the rest waits in {self._path}; the "
                "next stage that runs sends it",
                file=sys.stderr,
            )
        elif self._uri.startswith("http"):
            print(f"MLflow: {redacted(runs_page(self._uri, self._sender.experiment))}")
        self._file_lock.release()

    def _write(self, record: dict[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record) + "\n")

    def _watch_machine(self) -> None:
        """Body of the thread that measures the machine."""
        started, monitors = time.monotonic(), _monitors()
        while not self._ended.wait(SYSTEM_SECONDS):
            found: dict[str, object] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                found |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            values = {f"system/{name}": value for name, value in found.items()}
            self.metrics(values, int(time.monotonic() - started))

    def _send(self) -> None:
        """Body of the sending thread: earlier journals first, then this one until it is closed."""
        self._closing.wait(FIRST_SECONDS)
        while not self._given_up.is_set():
            closing = self._closing.is_set()  # asked first: what was written before is then sent below
            outcome = self._send_leftovers()
            if outcome is _Outcome.SENT:
                outcome = self._sender.send()
            if closing and outcome is _Outcome.SENT and not self._given_up.is_set():
                _remove(self._path)
                return
            if self._closing.is_set() and outcome is not _Outcome.SENT:
                return
            self._closing.wait(RETRY_SECONDS)

    def _send_leftovers(self) -> "_Outcome":
        """Send each earlier journal once; from the first one that the server did not answer to, try again later."""
        while self._leftovers and not self._given_up.is_set():
            path = self._leftovers[0]
            lock = _lock_of(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # its process is alive, or another one sends it
                self._leftovers.pop(0)
                continue
            try:
                if path.exists():
                    outcome = _Sender(path, self._uri, self._pulse, self._given_up).send()
                    if outcome is _Outcome.UNREACHABLE or self._given_up.is_set():
                        return outcome
                    if outcome is _Outcome.SENT:
                        _remove(path)
                self._leftovers.pop(0)
            finally:
                lock.release()
        return _Outcome.SENT


def _finite(values: Mapping[str, object]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
    return {legal_name(name): value for name, value in numbers.items() if math.isfinite(value)}


def _lock_of(journal: Path) -> FileLock:
    """The lock of whoever writes or sends a journal; the thread that releases it may be another one."""
    return FileLock(journal.with_suffix(".lock"), thread_local=False)


def _files_of(journal: Path) -> Path:
    """Folder of copies of the files that a journal's records name."""
    return journal.with_suffix(".files")


def _remove(journal: Path) -> None:
    """Remove a journal that has been sent; whoever gets its lock afterwards finds no journal."""
    journal.unlink(missing_ok=True)
    shutil.rmtree(_files_of(journal), ignore_errors=True)
    journal.with_suffix(".lock").unlink(missing_ok=True)


def _keep_files(journal: Path, sent: int) -> None:
    """Copy the files that a journal names after its first `sent` lines, and note that number."""
    folder = _files_of(journal)
    try:
        folder.mkdir(exist_ok=True)
        (folder / SENT).write_text(str(sent), encoding="utf-8")
        for number, line in enumerate(journal.read_bytes().split(b"\n")):
            record = _parsed(line)
            if number >= sent and record and "path" in record and Path(record["path"]).is_file():
                copy = folder / str(number) / Path(record["path"]).name
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(record["path"], copy)
    except OSError as error:
        print(f"files for MLflow cannot be kept in {folder}: {error}", file=sys.stderr)


class _Pulse:
    """Signs of life of MLflow's server, from all journals that a run sends."""

    def __init__(self) -> None:
        self._answered = time.monotonic()
        self._busy = False

    def answered(self) -> None:
        """The server has answered."""
        self._answered = time.monotonic()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Work that takes its time without an answer, such as a large file."""
        self._busy = True
        try:
            yield
        finally:
            self._answered, self._busy = time.monotonic(), False

    def silence(self, since: float) -> float:
        """Seconds without a sign of life after the time `since`."""
        return 0.0 if self._busy else time.monotonic() - max(since, self._answered)


class _Outcome(Enum):
    """What became of a journal. STUCK: something about it, or about the database, has to be repaired by a person."""

    SENT = auto()
    UNREACHABLE = auto()
    STUCK = auto()


def _import_mlflow() -> ModuleType:
    """MLflow with the settings that this adapter needs; the user's own take precedence."""
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the sending thread tries again itself
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    module: ModuleType = mlflow
    return module


def _monitors() -> list[Any]:
    """MLflow's measurements of this machine: CPU, memory, disks, network, and GPUs if it can."""
    _import_mlflow()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no driver, or no package to ask it
        monitors.append(GPUMonitor())
    return monitors


def _is_refused(error: Exception) -> bool:
    """Whether MLflow has looked at a record and will never accept it."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def _is_out_of_reach(error: Exception) -> bool:
    """Whether MLflow has not answered, or may give another answer later."""
    status = getattr(error, "get_http_status_code", None)
    return isinstance(error, ConnectionError) or (status is not None and (status() >= 429 or status() in (408, 409)))


class _Sender:
    """Replays one journal; remembers how far it came.

    A journal can be sent again from its start: MLflow keeps a metric with the same step, time and value once.

    Attributes:
        lines: how many lines MLflow has accepted, or has refused for good.
        experiment: id of the experiment; "" until the run is open.
    """

    def __init__(self, path: Path, uri: str, pulse: _Pulse, given_up: threading.Event) -> None:
        self._path = path
        self._uri = uri
        self._pulse = pulse
        self._given_up = given_up
        self._offset = 0  # in bytes
        self._client: Any = None
        self._run = ""
        self.experiment = ""
        self._execution: dict[str, str] | None = None
        self._tags: dict[str, str] = {}
        self._ends = True  # whether this journal decides when the run ends
        self._refused: dict[str, str] = {}  # names of metrics, with the reason
        self._reported: set[str] = set()
        self.lines = 0

    def send(self) -> _Outcome:
        """Send the records that have not been sent yet."""
        try:
            with self._pulse.busy():
                _import_mlflow()
            waiting = self._read()
            while waiting and not self._given_up.is_set():
                count = self._send_some(waiting)
                self._offset += sum(len(line) + 1 for line in waiting[:count])
                self.lines += count
                self._pulse.answered()
                del waiting[:count]
            return _Outcome.STUCK if waiting else _Outcome.SENT
        except Exception as error:  # whatever MLflow raises: its server's faults must not become ours
            self._report(_reason(error, self._uri))
            return _Outcome.UNREACHABLE if _is_out_of_reach(error) else _Outcome.STUCK

    def _read(self) -> list[bytes]:
        with self._path.open("rb") as journal:
            journal.seek(self._offset)
            # What follows the last line's end is still being written, or was cut short by a crash.
            return journal.read().split(b"\n")[:-1]

    def _send_some(self, waiting: list[bytes]) -> int:
        """Send the first record, or all metrics that follow each other and fit into a request; return their number."""
        first = _parsed(waiting[0])
        if first is None:
            return self._set_aside(waiting[0].decode(errors="replace"), "its line is damaged")
        name = first.pop("do")
        if name != "open" and not self._run:
            return self._set_aside(waiting[0].decode(), "the record that opens its run is missing")
        if name == "metrics":
            return self._send_metrics(waiting)
        _RECORDS[name](self, **first)
        return 1

    def _send_metrics(self, waiting: list[bytes]) -> int:
        from mlflow.entities import Metric

        count = 0
        metrics: list[Any] = []
        for line in waiting:
            record = _parsed(line)
            if record is None or record["do"] != "metrics":
                break
            if metrics and len(metrics) + len(record["values"]) > MOST_METRICS:
                break
            metrics += [Metric(name, v, record["time"], record["step"]) for name, v in record["values"].items()]
            count += 1
        self._log_metrics(self._run, metrics)
        return count

    def _open(
        self,
        key: str,
        name: str,
        experiment: str,
        parameters: dict[str, str],
        tags: dict[str, str],
        mode: Mode = "continue",
        time: int | None = None,
        datasets: Sequence[dict[str, str]] = (),
        execution: dict[str, str] | None = None,
    ) -> None:
        self._client = self._client or _import_mlflow().MlflowClient(self._uri)
        self.experiment = self._experiment_named(experiment)
        self._execution, self._tags = execution, tags
        runs = self._runs(JOURNAL, self._path.stem)
        again = bool(runs)
        if not again:
            runs = self._runs(KEY, key)
            if runs and mode == "begin" and runs[0].data.metrics:
                runs = []
        if not runs:
            start: dict[str, str] = {JOURNAL: self._path.stem, KEY: key}
            if execution:
                start[PARENT] = self._parent(time)
            run = self._client.create_run(self.experiment, time, start, name)
        else:
            run = runs[0]
            self._ends = again or (mode != "add" and run.info.status != "FINISHED")
            if self._ends:
                self._client.set_tag(run.info.run_id, JOURNAL, self._path.stem)
                self._client.update_run(run.info.run_id, status="RUNNING")
                if execution:  # a resumed training belongs to the execution that resumes it
                    self._client.set_tag(run.info.run_id, PARENT, self._parent(time))
        self._run = run.info.run_id
        if execution and self._ends:
            self._client.update_run(self._parent(time), status="RUNNING")
        if not runs or again:
            self._log_description(parameters, tags)
        self._log_datasets(datasets)

    def _experiment_named(self, name: str) -> str:
        kind = "custom_model_development"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            created: str = self._client.create_experiment(name, _artifacts_place(self._uri), {KIND: kind})
            return created
        if found.lifecycle_stage == "deleted":
            raise RuntimeError(
                f"the experiment {name} is deleted: restore it with `mlflow experiments restore --experiment-id "
                f"{found.experiment_id}`, or choose another tracking.experiment in params.yaml"
            )
        if KIND not in found.tags:
            self._client.set_experiment_tag(found.experiment_id, KIND, kind)
        identity: str = found.experiment_id
        return identity

    def _runs(self, tag: str, value: str) -> list[Any]:
        """Runs with a tag, the newest first."""
        condition = f"tags.`{tag}` = '{value}'"
        return list(self._client.search_runs([self.experiment], condition, order_by=["attributes.start_time DESC"]))

    def _parent(self, time: int | None) -> str:
        """The run of the execution of the graph, which its first stage makes."""
        assert self._execution
        identity = self._execution["identity"]
        runs = self._runs(EXECUTION, identity)
        if not runs:
            tags = {name: self._tags[name] for name in SHARED_TAGS if name in self._tags}
            tags[EXECUTION] = identity
            runs = [self._client.create_run(self.experiment, time, tags, self._execution["name"])]
        parent: str = runs[0].info.run_id
        return parent

    def _end_parent(self, parent: str, time: int) -> None:
        """Give a parent run the worst status and the latest end of its children, or `time` if that is later."""
        children = self._runs(PARENT, parent)
        statuses = {child.info.status for child in children}
        if "RUNNING" not in statuses:
            status = next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")
            end = max([time, *(child.info.end_time or 0 for child in children)])
            self._client.set_terminated(parent, status, end)

    def _log_description(self, parameters: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        given = [Param(legal_name(name), value) for name, value in parameters.items()]
        for part in _parts(given, MOST_PARAMETERS):
            self._each(lambda some: self._client.log_batch(self._run, params=some), part)
        for part in _parts([RunTag(legal_name(name), value) for name, value in tags.items()], MOST_PARAMETERS):
            self._each(lambda some: self._client.log_batch(self._run, tags=some), part)

    def _log_datasets(self, datasets: Sequence[dict[str, str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(found.name, found.sha256[:LONGEST_DIGEST], "local", json.dumps({"uri": found.place})),
                [InputTag("mlflow.data.context", found.context)],
            )
            for found in (DatasetUsed(**dataset) for dataset in datasets)
        ]
        if inputs:
            self._each(lambda some: self._client.log_inputs(self._run, some), inputs)

    def _log_metrics(self, run: str, metrics: list[Any]) -> None:
        for part in _parts(metrics, MOST_METRICS):
            self._each(lambda some: self._client.log_batch(run, metrics=some), part)

    def _headlines(self, values: dict[str, float], time: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, time, 0) for name, value in values.items()]
        self._log_metrics(self._run, metrics)
        if self._execution:
            parent = self._parent(time)
            self._log_metrics(parent, metrics)
            self._end_parent(parent, time)

    def _artifact(self, path: str, folder: str, modified: int | None = None) -> None:
        if file := self._file(path, modified):
            with self._pulse.busy():
                self._each(lambda some: self._client.log_artifact(self._run, some[0], folder or None), [str(file)])

    def _file(self, path: str, modified: int | None) -> Path | None:
        """The file of the present record, or its copy; None if it has been sent, or is set aside."""
        kept = _files_of(self._path)
        if (kept / SENT).is_file() and self.lines < int((kept / SENT).read_text(encoding="utf-8")):
            return None
        file = kept / str(self.lines) / Path(path).name
        if file.is_file():
            return file
        file = Path(path)
        if not file.is_file() or (modified is not None and file.stat().st_mtime_ns != modified):
            self._set_aside(path, "the file has been replaced or removed")
            return None
        return file

    def _model(self, path: str, task: str, registered: str | None, modified: int, sha256: str) -> None:
        """Log a model, once for each run and file, and register it, once for each model.

        A server of an older version, which knows no logged models, gets the file alone.
        """
        file = self._file(path, modified)
        if file is None:
            return
        with self._pulse.busy():
            try:
                logged = self._client.search_logged_models(
                    [self.experiment], filter_string=f"source_run_id = '{self._run}'"
                )
            except Exception as error:
                if getattr(error, "error_code", "") != "ENDPOINT_NOT_FOUND":
                    raise
                self._client.log_artifact(self._run, str(file))
                return
            ready = [m.model_id for m in logged if m.tags.get(WEIGHTS) == sha256 and m.status.name == "READY"]
            model = ready[0] if ready else self._log_model(file, task, sha256)
            if registered:
                self._register(registered, model)

    def _log_model(self, file: Path, task: str, sha256: str) -> str:
        from mlflow.entities import LoggedModelOutput

        tags = {WEIGHTS: sha256, KEY: self._tags[KEY]}
        created = self._client.create_logged_model(self.experiment, task, self._run, tags, model_type=task)
        model: str = created.model_id
        with tempfile.TemporaryDirectory() as folder:
            _write_model(Path(folder), file, task, model, self._run)
            self._client.log_model_artifacts(model, folder)
        self._client.log_outputs(self._run, [LoggedModelOutput(model, 0)])
        self._client.finalize_logged_model(model, "READY")
        return model

    def _register(self, name: str, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"models:/{model}"
        if not any(version.source == source for version in self._client.search_model_versions(f"name = '{name}'")):
            self._client.create_model_version(name, source, self._run, model_id=model)

    def _close(self, status: str, time: int | None = None) -> None:
        if not self._ends:
            return
        self._client.set_terminated(self._run, status, time)
        if self._execution:
            self._end_parent(self._parent(time), time or _now())

    def _each(self, send: Callable[[list[Any]], None], items: list[Any]) -> None:
        """Send all items in one request; if MLflow refuses one of them, send the others and set that one aside.

        A metric's name that was refused once is not sent again: halving finds it after ten requests, not a thousand.
        """
        new = []
        for item in items:
            if reason := self._refused.get(_metric_name(item)):
                self._set_aside(str(item), reason)
            else:
                new.append(item)
        items = new
        if not items:
            return
        try:
            send(items)
        except Exception as error:
            if not _is_refused(error):
                raise
            if len(items) > 1:
                self._each(send, items[: len(items) // 2])
                self._each(send, items[len(items) // 2 :])
                return
            reason = _reason(error, self._uri)
            self._set_aside(str(items[0]), reason)
            if name := _metric_name(items[0]):
                self._refused[name] = reason

    def _set_aside(self, record: str, reason: str) -> int:
        """Keep a record that MLflow does not accept, so that those after it are sent; return 1, its number of lines."""
        place = self._path.with_name(REFUSED)
        with place.open("a", encoding="utf-8") as refused:
            refused.write(redacted(f"{self._path.name}: {record}: {reason}\n"))
        self._report(f"a record is set aside in {place}: {reason}", once=reason)
        return 1

    def _report(self, text: str, once: str = "") -> None:
        """Print a sentence; the same one only once."""
        if (once or text) not in self._reported:
            say(f"MLflow: {redacted(text)}", as_error=True)
        self._reported.add(once or text)


def _write_model(folder: Path, weights: Path, task: str, model: str, run: str) -> None:
    """Write what MLflow loads: a copy of the weights file, and `MLmodel`, which describes it.

    It names no Python packages to install: what serves it is the environment of this project.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature

    predictor = ALL_TASKS[task].predictor if task in ALL_TASKS else None
    outputs = _schema(predictor.columns, tuple(predictor.columns)) if predictor else None
    signature = ModelSignature(_schema(INPUT_COLUMNS, ("image",)), outputs)
    described = Model(model_id=model, run_id=run, signature=signature)
    mlflow.pyfunc.add_to_model(described, loader_module=LOADER, data=weights.name)
    described.save(folder / "MLmodel")
    shutil.copyfile(weights, folder / weights.name)


def _schema(columns: Mapping[str, tuple[str, int]], required: Sequence[str]) -> Any:  # noqa: ANN401 - MLflow's
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    specs = []
    for name, (kind, levels) in columns.items():
        type_ = DataType[kind]
        for _ in range(levels):
            type_ = Array(type_)
        specs.append(ColSpec(type_, name, required=name in required))
    return Schema(specs)


def _metric_name(item: object) -> str:
    """Name of a metric; "" for a parameter, a tag or a file."""
    from mlflow.entities import Metric

    return str(item.key) if isinstance(item, Metric) else ""


def _parts(items: list[Any], most: int) -> Iterable[list[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))


def _reason(error: Exception, uri: str) -> str:
    """An error in one line, which for a database of another version says what to do."""
    text = str(error)
    if "out-of-date database schema" in text:
        return (
            "the database has the tables of another version of MLflow: back it up and run `mlflow db upgrade "
            f"{uri}`, or install the version that made it"
        )
    if "Can't locate revision" in text:
        return f"a newer version of MLflow made the database {uri}: install that version, or use another database"
    return (text.strip().split("\n")[0] or repr(error))[:500]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A journal's record; None if the line is damaged."""
    try:
        record = json.loads(line)
        method = _RECORDS[record["do"]]
        inspect.signature(method).bind(None, **{name: value for name, value in record.items() if name != "do"})
        if "values" in record:
            record["values"] = {name: float(value) for name, value in record["values"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    parsed: dict[str, Any] = record
    return parsed


def _form_of_metrics(sender: _Sender, values: dict[str, float], step: int, time: int) -> None:
    """The fields of a record of metrics; many of them are sent together."""


#: What a journal's records do: the method that sends one, whose arguments are the fields of the record.
_RECORDS: dict[str, Callable[..., None]] = {
    "open": _Sender._open,
    "metrics": _form_of_metrics,
    "headlines": _Sender._headlines,
    "artifact": _Sender._artifact,
    "model": _Sender._model,
    "close": _Sender._close,
}

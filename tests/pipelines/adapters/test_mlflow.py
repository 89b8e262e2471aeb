"""The journal between the stages and MLflow: nothing is lost when the server is away or a line is cut short."""

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tcformer
from pipelines.adapters import mlflow as tracking
from pipelines.running.execution import Execution
from tests.conftest import Workplace
from tests.tcformer.inference.test_predictor import weights

NOBODY = "http://127.0.0.1:9"  # nothing listens there


def rows(database: Path, query: str) -> list[tuple]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def steps(database: Path) -> list[int]:
    return [step for (step,) in rows(database, "select step from metrics where key = 'loss' order by step")]


@pytest.fixture(autouse=True)
def _send_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "FIRST_SECONDS", 0.0)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with MLflow's tables, whose creation takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    tracking._import_mlflow().MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def database(empty_database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 60.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlflow.db"


def opened(journals: Path, key: str = "training-1", name: str = "name", **options: Any) -> tracking.Run:
    return tracking.Run(key, name, "test", journals, options.pop("parameters", {}), options.pop("tags", {}), **options)


def wait_for(condition: Any, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_dead_server_loses_nothing(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals = tmp_path / "journals"
    alive = tracking.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    lost = tracking.Run("training-1", "first", "test", journals, {"lr": 0.1}, {})
    lost.metrics({"loss": 2.0, "AP@0.5": 0.25, "broken": float("nan")}, step=7)
    lost.close()
    (waiting,) = journals.glob("*.jsonl")
    with waiting.open("a") as journal:
        journal.write('{"do": "metrics", "val')  # a crash cut the last line short

    monkeypatch.setenv("MLFLOW_TRACKING_URI", alive)
    tracking.Run("training-2", "second", "test", journals, {}, {}).close()
    assert sorted(rows(database, "select name, status from runs")) == [("first", "FINISHED"), ("second", "FINISHED")]
    assert sorted(rows(database, "select key, value, step from metrics")) == [("AP_0.5", 0.25, 7), ("loss", 2.0, 7)]
    assert list(journals.glob("*.jsonl")) == []


def test_numbers_of_every_type_arrive_and_nothing_else(database: Path, tmp_path: Path) -> None:
    run = opened(tmp_path / "journals")
    values = {"int": 3, "float": 0.5, "numpy": np.float32(0.25), "count": np.int64(7)}
    others = {"bool": True, "text": "1", "none": None, "list": [1.0], "nan": float("nan"), "inf": float("inf")}
    run.metrics({**values, **others}, step=1)
    run.close()
    assert dict(rows(database, "select key, value from metrics")) == {"int": 3, "float": 0.5, "numpy": 0.25, "count": 7}


def test_a_stage_beside_another_leaves_its_journal_alone(database: Path, tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    long = opened(journals, name="long")
    long.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: steps(database) == [1])
    (live,) = journals.glob("*.jsonl")
    opened(journals, key="training-2", name="short").close()
    assert list(journals.glob("*.jsonl")) == [live]
    assert dict(rows(database, "select name, status from runs")) == {"long": "RUNNING", "short": "FINISHED"}
    long.metrics({"loss": 1.0}, step=2)
    long.close()
    assert steps(database) == [1, 2]
    assert dict(rows(database, "select name, status from runs")) == {"long": "FINISHED", "short": "FINISHED"}
    assert list(journals.iterdir()) == []


@pytest.mark.parametrize("name", ["a//b", "x" * 300, "../up"])
def test_a_refused_metric_is_set_aside_and_the_rest_goes_on(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    journals = tmp_path / "journals"
    run = opened(journals, parameters={"y" * 300: 1, "lr": 2})
    for step in range(8):
        run.metrics({"loss": 1.0, name: 2.0}, step=step)
    run.close()
    assert steps(database) == list(range(8))
    assert rows(database, "select distinct key from metrics") == [("loss",)]
    assert rows(database, "select key from params") == [("lr",)]
    assert rows(database, "select status from runs") == [("FINISHED",)]
    assert [path.name for path in journals.iterdir()] == [tracking.REFUSED]
    assert name in (journals / tracking.REFUSED).read_text()
    printed = capsys.readouterr().err
    assert len(re.findall("a record is set aside", printed)) <= 3, "one sentence a reason"
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "damaged",
    [b"\0\0\xff", b"{}", b'{"do": "metrics"}', b'{"do": "metrics", "values": 1, "step": 1, "time": 1}', b"[]"],
)
def test_a_damaged_line_is_set_aside_and_the_rest_goes_on(
    database: Path, tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    journals = tmp_path / "journals"
    run = opened(journals)
    run.metrics({"loss": 1.0}, step=1)
    with run._lock, run._path.open("ab") as journal:
        journal.write(damaged + b"\n")
    run.metrics({"loss": 1.0}, step=2)
    run.close()
    assert steps(database) == [1, 2]
    assert rows(database, "select status from runs") == [("FINISHED",)]
    assert capsys.readouterr().err.count("its line is damaged") == 1


def test_a_journal_without_its_first_line_blocks_nothing(database: Path, tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    journals.mkdir()
    (journals / "1.jsonl").write_text('{"do": "op\n{"do": "close", "status": "FINISHED"}\n')
    opened(journals).close()
    assert rows(database, "select name, status from runs") == [("name", "FINISHED")]
    assert [path.name for path in journals.iterdir()] == [tracking.REFUSED]


def test_many_rows_go_in_few_requests(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking._import_mlflow().MlflowClient
    sizes = []
    original = client.log_batch

    def counted(self: Any, run_id: str, metrics: Any = (), **others: Any) -> None:
        sizes.append(len(metrics))
        original(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(client, "log_batch", counted)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 2.0)
    run = opened(tmp_path / "journals")
    for step in range(1500):
        run.metrics({"loss": 1.0, "lr": 0.1}, step=step)
    run.close()
    assert steps(database) == list(range(1500))
    sizes = [size for size in sizes if size]
    assert sum(sizes) == 3000 and max(sizes) <= 1000 and len(sizes) < 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_dead_server_costs_less_than_5_seconds(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, says nothing
        address = NOBODY if kind == "refused" else f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//anna:secret@"))
        tracking._import_mlflow()
        run = opened(tmp_path / "journals")
        run.metrics({"loss": 1.0})
        started = time.monotonic()
        run.close()
        assert time.monotonic() - started < 5
    printed = capsys.readouterr().err
    assert "the rest waits in" in printed
    assert "secret" not in printed and "anna" not in printed


def test_files_that_are_replaced_before_the_server_is_back(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC removes outputs and the copy of the repository in which it runs an experiment."""
    journals, file = tmp_path / "journals", tmp_path / "metrics.json"
    alive = tracking.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    file.write_text("first")
    run = opened(journals)
    run.artifact(file, "evaluate")
    run.close()
    file.write_text("second")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", alive)
    opened(journals, key="training-2").close()
    (recorded,) = (tmp_path / "mlruns").rglob("metrics.json")
    assert recorded.read_text() == "first" and recorded.parent.name == "evaluate"
    assert list(journals.iterdir()) == []


def test_relative_addresses_mean_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "home", lambda: Path("/a/repository"))
    monkeypatch.setenv("HOME", "/a/100% home")
    for given, meant in (
        ("sqlite:///mlflow.db", "sqlite:////a/repository/mlflow.db"),
        ("sqlite:///runs/my.db?timeout=9", "sqlite:////a/repository/runs/my.db?timeout=9"),
        ("./mlruns", "/a/repository/mlruns"),
        ("file:mlruns", "file:///a/repository/mlruns"),
        ("file:./mlruns", "file:///a/repository/mlruns"),
        ("", "sqlite:////a/repository/mlflow.db"),
        ("sqlite:////elsewhere/mlflow.db", "sqlite:////elsewhere/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("file:///elsewhere/mlruns", "file:///elsewhere/mlruns"),
        ("/elsewhere/mlruns", "/elsewhere/mlruns"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
        ("databricks", "databricks"),
        ("sqlite:///~/my.db", "sqlite:////a/100%25 home/my.db"),
        ("file:~/mlruns", "file:///a/100%25%20home/mlruns"),
        ("~/mlruns", "/a/100% home/mlruns"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert tracking.tracking_uri() == meant
    assert tracking._artifacts_place("sqlite:////elsewhere/my.db?timeout=9") == "file:///elsewhere/mlruns"
    assert tracking._artifacts_place("http://127.0.0.1:5000") is None


def test_a_later_stage_adds_to_the_run_and_keeps_its_duration(database: Path, tmp_path: Path) -> None:
    run = opened(tmp_path / "journals", name="train", mode="begin")
    run.metrics({"loss": 1.0})
    run.close()
    before = rows(database, "select name, status, start_time, end_time from runs")
    time.sleep(0.01)
    for mode in ("add", "continue"):  # an evaluation; a training whose result is there already
        later = opened(tmp_path / "journals", name=mode, mode=mode)
        later.metrics({mode: 1.0})
        later.close()
    assert rows(database, "select name, status, start_time, end_time from runs") == before
    assert sorted(rows(database, "select key from metrics")) == [("add",), ("continue",), ("loss",)]


def test_a_resumed_training_goes_on_in_its_run_and_a_new_one_does_not(database: Path, tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    for mode, status in (("begin", "FAILED"), ("begin", "KILLED"), ("continue", "FINISHED"), ("begin", "FINISHED")):
        run = opened(journals, mode=mode)
        if status != "FAILED":  # the first one fails before its first step
            run.metrics({"loss": 1.0}, step=2 if mode == "continue" else 1)
        run.close(status)
    found = rows(database, "select status, count(step) from runs join metrics using (run_uuid) group by run_uuid")
    assert sorted(found) == [("FINISHED", 1), ("FINISHED", 2)]
    assert len(rows(database, "select * from runs")) == 2


def test_a_journal_that_is_sent_twice_makes_one_run(database: Path, tmp_path: Path) -> None:
    """A process can be killed, and a request can time out, after the server has accepted it."""
    journals = tmp_path / "journals"
    run = opened(journals, mode="begin")
    run.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: steps(database) == [1])
    copy = run._path.read_bytes()
    name = run._path.name
    run.close("KILLED")
    (journals / name).write_bytes(copy)
    opened(journals, key="training-2", name="other").close()
    assert steps(database) == [1]
    assert len(rows(database, "select * from runs")) == 2


def test_stages_of_an_execution_are_children_of_one_run(database: Path, tmp_path: Path) -> None:
    journals, execution = tmp_path / "journals", Execution("host-1", "dvc repro")
    for number, status in enumerate(("FINISHED", "KILLED")):
        run = opened(journals, key=f"training-{number}", name=f"child {number}", mode="begin", execution=execution)
        run.metrics({"loss": 1.0})
        run.close(status)
    later = opened(journals, key="training-0", mode="add", execution=execution)
    later.headlines({"body/AP": 0.5})
    later.close()
    names = dict(rows(database, "select run_uuid, name from runs"))
    parents = rows(database, f"select run_uuid, value from tags where key = '{tracking.PARENT}'")
    assert sorted((names[child], names[parent]) for child, parent in parents) == [
        ("child 0", "dvc repro"),
        ("child 1", "dvc repro"),
    ]
    assert rows(database, "select status from runs where name = 'dvc repro'") == [("KILLED",)]
    headlines = rows(database, "select run_uuid from metrics where key = 'body/AP'")
    assert sorted(names[run] for (run,) in headlines) == ["child 0", "dvc repro"]

    resumed = opened(journals, key="training-1", execution=Execution("host-2", "dvc repro again"))
    resumed.close()
    assert dict(rows(database, "select name, status from runs")) == {
        "dvc repro": "KILLED",
        "child 0": "FINISHED",
        "dvc repro again": "FINISHED",
        "child 1": "FINISHED",
    }
    parents = rows(database, f"select value from tags where key = '{tracking.PARENT}'")
    names = dict(rows(database, "select run_uuid, name from runs"))
    assert sorted(names[parent] for (parent,) in parents) == ["dvc repro", "dvc repro again"]


def test_an_experiment_opens_on_its_runs_which_name_their_data(database: Path, tmp_path: Path) -> None:
    tracking._import_mlflow().MlflowClient(tracking.tracking_uri()).create_experiment("test")  # by an older version
    data = tracking.DatasetUsed(name="sample/face", sha256="ab" * 32, place="/data/face", context="training")
    opened(tmp_path / "journals", datasets=[data]).close()
    tags = rows(database, "select key, value from experiment_tags")
    assert ("mlflow.experimentKind", "custom_model_development") in tags
    assert rows(database, "select name, digest from datasets") == [("sample/face", ("ab" * 32)[:36])]


def test_a_stage_ends_with_the_address_of_the_runs(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened(tmp_path / "journals")
    run._uri = "http://me:secret@server:5000/"
    run.close()
    address = "http://***@server:5000/#/experiments/1/runs?workflowType=machine_learning"
    assert capsys.readouterr().out == f"MLflow: {address}\n"
    opened(tmp_path / "journals").close()
    assert capsys.readouterr().out == "", "no server is known"


def test_a_database_of_an_older_version_says_what_to_do(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("update alembic_version set version_num = '89d4b8295536'")
    opened(tmp_path / "journals").close()
    printed = capsys.readouterr().err
    assert f"mlflow db upgrade sqlite:///{database}" in printed and "back it up" in printed
    assert "the rest waits in" in printed


def test_a_deleted_experiment_says_what_to_do(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journals = tmp_path / "journals"
    opened(journals).close()
    client = tracking._import_mlflow().MlflowClient(tracking.tracking_uri())
    identity = client.get_experiment_by_name("test").experiment_id
    client.delete_experiment(identity)
    opened(journals, key="training-2").close()
    assert f"restore it with `mlflow experiments restore --experiment-id {identity}`" in capsys.readouterr().err
    client.restore_experiment(identity)
    opened(journals, key="training-3").close()
    assert len(rows(database, "select * from runs")) == 3


class Server:
    """A real MLflow server on the loopback address."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        places = ["--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", "files"]
        with (self.database.with_suffix(".log")).open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, *places], cwd=self.database.parent, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self.process and self.process.poll() is None
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process
        self.process.wait()


@pytest.fixture
def server(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    place = tmp_path / "server"
    place.mkdir()
    (place / "server.db").write_bytes(database.read_bytes())
    started = Server(place)
    started.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started.uri)
    yield started
    started.stop()


@pytest.mark.slow
def test_a_real_server_that_is_slow_killed_and_started_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journals, file = tmp_path / "journals", tmp_path / "curve.csv"
    file.write_text("step,loss\n")
    data = tracking.DatasetUsed(name="sample/face", sha256="ab" * 32, place="/data/face", context="training")
    run = opened(journals, mode="begin", datasets=[data], execution=Execution("host-1", "dvc repro"))
    for step in range(2000):
        run.metrics({"loss": 1.0, "a//b": 2.0, "x" * 300: 3.0}, step=step)
    wait_for(lambda: len(steps(server.database)) == 2000)
    server.stop()
    for step in range(2000, 2500):
        run.metrics({"loss": 1.0}, step=step)
    time.sleep(1)
    server.start()
    wait_for(lambda: len(steps(server.database)) == 2500)

    server.signal(signal.SIGSTOP)
    run.metrics({"loss": 1.0}, step=2500)
    run.artifact(file)
    started = time.monotonic()
    run.close()
    assert time.monotonic() - started < 5
    server.signal(signal.SIGCONT)

    def next_stage_sends_the_rest() -> bool:
        opened(journals, mode="continue").close()  # on a busy machine the server does not answer at once
        return len(steps(server.database)) == 2501

    wait_for(next_stage_sends_the_rest)
    assert steps(server.database) == list(range(2501))
    assert rows(server.database, "select distinct key from metrics") == [("loss",)]
    statuses = sorted(rows(server.database, "select name, status from runs"))
    assert statuses == [("dvc repro", "FINISHED"), ("name", "FINISHED")]
    assert [path.read_text() for path in server.database.parent.rglob("curve.csv")] == ["step,loss\n"]
    assert rows(server.database, "select name from datasets") == [("sample/face",)]
    assert [path.name for path in journals.iterdir()] == [tracking.REFUSED]


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["sqlite:///my.db", ""])
def test_what_an_experiment_records_in_a_copy_of_the_repository_outlives_it(
    workplace: Workplace, empty_database: bytes, uri: str
) -> None:
    folder = workplace.folder
    database = folder / (uri.rpartition("/")[2] or "mlflow.db")
    database.write_bytes(empty_database)
    (folder / ".gitignore").write_text("/runs/\n*.db\n/mlruns/\n")
    (folder / "dvc.yaml").write_text("stages:\n  record:\n    cmd: python record.py\n    deps: [record.py]\n")
    (folder / "record.py").write_text(
        "from pathlib import Path\n"
        "from pipelines.adapters.mlflow import Run\n"
        "from pipelines.running.execution import current_execution\n"
        "from pipelines.layout import Layout\n"
        "Path('file').write_text('content')\n"
        "checkpoints = Layout('sample').checkpoints\n"
        "checkpoints.mkdir(parents=True, exist_ok=True)\n"
        "(checkpoints / 'step').touch()\n"
        "journals, execution = Layout('sample').journals, current_execution()\n"
        "run = Run('key', 'name', 'test', journals, {}, {}, mode='begin', execution=execution)\n"
        "run.metrics({'loss': 1.0}, step=1)\n"
        "run.artifact(Path('file'))\n"
        "run.close()\n"
    )
    git = {f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm all"):
        workplace.run(*command.split(), **git)
    workplace.run("dvc", "exp", "run", "--temp", "-n", "one", **git, MLFLOW_TRACKING_URI=uri, PYTHONPATH="")
    assert steps(database) == [1]
    assert sorted(rows(database, "select name, status from runs")) == [("name", "FINISHED"), ("one", "FINISHED")]
    assert [found.read_text() for found in (folder / "mlruns").rglob("file")] == ["content"]
    assert (folder / "runs/sample/checkpoints/step").is_file()

    workplace.run(
        "dvc", "exp", "run", "--temp", "-f", "-n", "two", **git, MLFLOW_TRACKING_URI=NOBODY, PYTHONPATH=""
    )  # fmt: skip
    (journal,) = (folder / "runs/sample/mlflow").glob("*.jsonl")
    assert json.loads(journal.read_text().splitlines()[1])["values"] == {"loss": 1.0}
    assert [kept.read_text() for kept in journal.with_suffix(".files").rglob("file")] == ["content"]


def test_the_database_of_a_repository_with_special_letters_in_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: bytes
) -> None:
    import sqlalchemy
    from mlflow import MlflowClient

    folder = tmp_path / "what? 100%20 #1 é"
    folder.mkdir()
    monkeypatch.setattr(tracking, "home", lambda: folder)
    (folder / "mlflow.db").write_bytes(empty_database)
    MlflowClient(tracking.default_uri()).create_experiment("e", (folder / "mlruns").as_uri())
    assert ("e",) in rows(folder / "mlflow.db", "select name from experiments")
    assert tracking._artifacts_place(tracking.default_uri()) == (folder / "mlruns").as_uri()
    # MLflow makes an empty folder for the address as it is written; the database is not in it.
    assert list(tmp_path.rglob("*.db")) == [folder / "mlflow.db"]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///my%20own.db?timeout=20")
    url = sqlalchemy.make_url(tracking.tracking_uri())
    assert (url.database, url.query) == (str(folder / "my own.db"), {"timeout": "20"})
    assert tracking._artifacts_place(tracking.tracking_uri()) == (folder / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:my%20runs")
    assert tracking.tracking_uri() == (folder / "my runs").as_uri()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """The weights file of a tiny network for faces."""
    return weights(tmp_path, "face", {"input_size": [64, 64]})


def test_a_network_is_a_model_that_mlflow_loads(database: Path, tmp_path: Path, network: Path, samples: Path) -> None:
    """In every run once, however often its result is taken; in the registry once as well."""
    for _ in range(2):
        run = opened(tmp_path / "journals")
        run.model(network, "face", "people-face")
        run.close()
    [(model,)] = rows(database, "select model_id from logged_models where status = 2")
    assert rows(database, "select name, version from model_versions") == [("people-face", 1)]
    folder = next((tmp_path / "mlruns").rglob("MLmodel")).parent
    assert sorted(path.name for path in folder.iterdir()) == ["MLmodel", network.name], "no pickle and no code"

    import mlflow

    mlflow.set_tracking_uri(tracking.tracking_uri())
    photo = (samples / "persons/astronaut.png").read_bytes()
    for address in (f"models:/{model}", "models:/people-face/1"):
        loaded = mlflow.pyfunc.load_model(address)
        [found] = loaded.predict(pd.DataFrame({"image": [photo]}))
        np.testing.assert_allclose(found["points"], tcformer.Predictor.load(network)(photo_of(samples)).points)
    assert [column.name for column in loaded.metadata.signature.outputs] == ["boxes", "points", "scores"]


def photo_of(samples: Path) -> Path:
    return samples / "persons/astronaut.png"


def test_a_network_that_is_replaced_before_the_server_is_back(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Path
) -> None:
    alive, content = tracking.tracking_uri(), network.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    run = opened(tmp_path / "journals")
    run.model(network, "face")
    run.close()
    network.write_bytes(b"other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", alive)
    opened(tmp_path / "journals", key="training-2").close()
    (recorded,) = (tmp_path / "mlruns").rglob(network.name)
    assert recorded.read_bytes() == content
    assert rows(database, "select count(*) from logged_models") == [(1,)]
    assert rows(database, "select count(*) from registered_models") == [(0,)]


def test_a_server_without_logged_models_gets_the_file(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Path
) -> None:
    module = tracking._import_mlflow()
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

    def unknown(*arguments: Any, **options: Any) -> None:
        raise module.MlflowException("no such path", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(module.MlflowClient, "search_logged_models", unknown)
    run = opened(tmp_path / "journals")
    run.model(network, "face", "people-face")
    run.close()
    (recorded,) = (tmp_path / "mlruns").rglob(network.name)
    assert recorded.parent.name == "artifacts"
    assert rows(database, "select status from runs") == [("FINISHED",)]


def test_a_model_takes_less_than_a_second(database: Path, tmp_path: Path, network: Path) -> None:
    import mlflow.pyfunc  # noqa: F401 - what a training's thread has imported long before its end

    run = opened(tmp_path / "journals")
    run.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: steps(database) == [1])
    started = time.monotonic()
    run.model(network, "face")
    run.close()
    assert time.monotonic() - started < 3, "about 0.2 s without the load of other tests"


def test_the_load_of_the_machine(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SYSTEM_SECONDS", 0.05)
    run = opened(tmp_path / "journals", watches_machine=True)
    query = "select key from metrics where key like 'system/%'"
    wait_for(lambda: ("system/cpu_utilization_percentage",) in rows(database, query))
    run.close()
    assert list((tmp_path / "journals").iterdir()) == [], "nothing is written after the end"


@pytest.mark.slow
@pytest.mark.long
def test_a_network_is_served(database: Path, tmp_path: Path, network: Path, samples: Path) -> None:
    """As docs/mlflow.md says, from the registry."""
    run = opened(tmp_path / "journals")
    run.model(network, "face", "people-face")
    run.close()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/people-face/1", "-p", str(port)]
    root = str(Path(__file__).resolve().parents[3])
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "--env-manager", "local"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": root, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
    try:
        content = base64.b64encode(photo_of(samples).read_bytes()).decode()
        body = json.dumps({"dataframe_records": [{"image": content}]}).encode()
        address = f"http://127.0.0.1:{port}/invocations"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        answers: list[dict] = []

        def answered() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    answers.append(json.load(response))
            except (urllib.error.URLError, ConnectionError):
                return False
            return True

        wait_for(answered)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    [found] = answers[0]["predictions"]
    np.testing.assert_allclose(found["points"], tcformer.Predictor.load(network)(photo_of(samples)).points, atol=1e-3)

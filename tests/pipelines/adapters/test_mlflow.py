"""The journal between the stages and MLflow: nothing is lost when the server is away or a line is cut short."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pipelines.adapters import mlflow as tracking


def rows(database: Path, query: str) -> list[tuple]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlflow.db"


def test_a_dead_server_loses_nothing(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals = tmp_path / "journals"
    alive = tracking.tracking_uri()
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 3.0)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    lost = tracking.Run("training-1", "first", "test", journals, {"lr": 0.1}, {})
    lost.metrics({"loss": 2.0, "AP@0.5": 0.25, "broken": float("nan")}, step=7)
    lost.close()
    (waiting,) = journals.glob("*.jsonl")
    with waiting.open("a") as journal:
        journal.write('{"do": "metrics", "val')  # a crash cut the last line short

    monkeypatch.setenv("MLFLOW_TRACKING_URI", alive)
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 60.0)
    tracking.Run("training-2", "second", "test", journals, {}, {}).close()
    assert sorted(rows(database, "select name, status from runs")) == [("first", "FINISHED"), ("second", "FINISHED")]
    assert sorted(rows(database, "select key, value, step from metrics")) == [("AP_0.5", 0.25, 7), ("loss", 2.0, 7)]
    assert list(journals.glob("*.jsonl")) == []


def test_a_later_stage_continues_the_run_of_its_training(database: Path, tmp_path: Path) -> None:
    for name in ("train", "evaluate"):
        run = tracking.Run("training-1", name, "test", tmp_path / "journals", {}, {})
        run.metrics({name: 1.0})
        run.close()
    assert rows(database, "select name from runs") == [("train",)]
    assert sorted(rows(database, "select key from metrics")) == [("evaluate",), ("train",)]


def test_numbers_of_every_type_arrive_and_nothing_else(database: Path, tmp_path: Path) -> None:
    run = tracking.Run("training-1", "types", "test", tmp_path / "journals", {}, {})
    values = {"int": 3, "float": 0.5, "numpy": np.float32(0.25), "count": np.int64(7)}
    others = {"bool": True, "text": "1", "none": None, "list": [1.0], "nan": float("nan"), "inf": float("inf")}
    run.metrics({**values, **others}, step=1)
    run.close()
    assert dict(rows(database, "select key, value from metrics")) == {"int": 3, "float": 0.5, "numpy": 0.25, "count": 7}


def test_the_database_of_a_repository_with_special_letters_in_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "what? 100%20 #1 é"
    folder.mkdir()
    monkeypatch.setattr(tracking, "home", lambda: folder)
    client = MlflowClient(tracking.default_uri())
    client.create_experiment("e", (folder / "mlruns").as_uri())
    assert (folder / "mlflow.db").is_file() and [path.name for path in tmp_path.rglob("*.db")] == ["mlflow.db"]

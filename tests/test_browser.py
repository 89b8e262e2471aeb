"""Reports, inspector and MLflow in a real browser: no error, every picture loaded, readable at 400 pixels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.adapters import mlflow as tracking
from pipelines.adapters.mlflow import Run, runs_page
from pipelines.driver.run_name import run_name
from pipelines.params import spec_to_json
from pipelines.report.html import to_html
from pipelines.report.parts import Inspector, Report, Section
from pipelines.running.execution import Execution
from pipelines.trained import headlines_of
from tests.browser import Page, browser, needs_chromium
from tests.pipelines.test_report import everything
from tests.pipelines.test_report_inspector import picture
from tests.small import commit, parameters

pytestmark = needs_chromium
WIDTHS = (1280, 400)
#: Parts of what the evaluations of three tasks measure.
MEASURED: dict[str, dict[str, Any]] = {
    "wholebody": {"body": {"AP": 0.37}, "wholebody": {"AP": 0.19}, "oks": 0.45},
    "face": {"full": {"NME": 0.0385}},
    "imagenet": {"top1": 0.53},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    pictures = {"Noise": [picture(token_reduction="ctm"), picture(token_reduction="ctm")]}
    inspector = Section("Tokens one by one", (Inspector("Token inspector", pictures),))
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(to_html(Report("A report", (*everything().sections, inspector))), encoding="utf-8")
    return path.as_uri()


def facts(page: Page) -> str:
    return str(page.evaluate("document.querySelector('[data-part=facts]').textContent"))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_has_no_fault(page: Page, report: str, width: int) -> None:
    page.open(report, width=width)
    assert page.faults() == []
    page.evaluate("document.querySelectorAll('details').forEach(section => { section.open = true; })")
    assert page.faults() == []


@pytest.mark.parametrize("head", ["", "<meta name='viewport' content='width=device-width'>"])
def test_faults_are_found(page: Page, tmp_path: Path, head: str) -> None:
    """The checks of this file would notice each kind of fault."""
    path = tmp_path / "page.html"
    body = "<img src='missing.png' width=9><div style='width:900px'>x</div><script>x.y()</script>"
    path.write_text(f"<html><head>{head}</head><body>{body}", encoding="utf-8")
    page.open(path.as_uri(), width=400)
    faults = " ".join(page.faults())
    assert "picture not loaded" in faults and "pixels wide, not 400" in faults and "x is not defined" in faults


def test_the_inspector_follows_the_keyboard(page: Page, report: str) -> None:
    page.open(report)
    page.evaluate("document.querySelector('[data-part=picture]').focus()")
    for _ in range(9):  # the radio buttons of a group are one stop
        if page.evaluate("document.activeElement.dataset.part") == "photo":
            break
        page.press("Tab")
    page.press("1", *["ArrowLeft"] * 20, *["ArrowUp"] * 20)
    assert "1 of 96 of stage 1" in facts(page)
    page.press("ArrowRight")
    assert "2 of 96 of stage 1" in facts(page)
    page.press("Tab", "ArrowUp", "ArrowUp", "ArrowUp")
    assert "of 2 of stage 4" in facts(page)
    assert page.faults() == []


def test_the_inspector_follows_a_finger(page: Page, report: str) -> None:
    page.open(report, width=400)
    page.evaluate("document.querySelector('.controls').scrollIntoView()")
    page.evaluate("document.querySelector('input[type=radio]').click()")  # stage 1
    left, top, width, height = page.evaluate(
        "(box => [box.left, box.top, box.width, box.height])"
        "(document.querySelector('[data-part=photo]').getBoundingClientRect())"
    )
    page.tap(left + width * 11.5 / 12, top + height * 0.5 / 8)
    assert "12 of 96 of stage 1" in facts(page)
    page.tap(left + width * 0.5 / 12, top + height * 1.5 / 8)
    assert "13 of 96 of stage 1" in facts(page)
    assert page.faults() == []


@pytest.fixture(scope="module")
def recorded_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A database with two executions of the graph of three trainings each, and their six names.

    They are recorded as the driver records them, so that the pages show the product's names, parents and measures.
    """
    folder = tmp_path_factory.mktemp("recorded")
    database = f"sqlite:///{folder / 'mlflow.db'}"
    journals, names = folder / "journals", []
    parameters(folder)
    commit(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", database)
        patch.setattr(tracking, "FLUSH_SECONDS", 120.0)  # the tables of a new database take seconds
        for number, rate in enumerate((4.5e-3, 6e-3)):
            params = parameters(folder, finetune__wholebody__training__optimizer__lr=rate)
            execution = Execution(f"host-{number}", f"dvc repro 2026-11-26 0{number}:00")
            for task, metrics in MEASURED.items():
                names.append(run_name(task, params, root=folder))
                training = params.active.training_of(task).training.model_dump(mode="json")
                run = Run(
                    f"{task}-{number}",
                    names[-1],
                    "tcformer",
                    journals,
                    {"options": json.loads(spec_to_json(params.active.spec_of(task))), "training": training},
                    {"dvc.stage": task, "recipe": "sample"},
                    mode="begin",
                    execution=execution,
                )
                for step in range(3):
                    run.metrics({"loss": 1 / (1 + step + number)}, step)
                run.headlines(headlines_of(task, metrics))
                run.close()
    return database, names


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, recorded_runs: tuple[str, list[str]]) -> Iterator[str]:
    """The address of a server that shows the recorded runs."""
    database, _ = recorded_runs
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", database]
    log = (folder / "log").open("w")
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command], env=quiet, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
        log.close()


def own_faults(page: Page) -> list[str]:
    """Faults but one: a server without accounts answers 404 to the page's question for the present user."""
    return [fault for fault in page.faults() if "/mlflow/users/current" not in fault]


@pytest.mark.slow
@pytest.mark.long
def test_mlflow_shows_runs_and_compares_them(
    page: Page, mlflow_server: str, recorded_runs: tuple[str, list[str]]
) -> None:
    import mlflow

    database, names = recorded_runs
    text = "document.body.innerText"
    for width in WIDTHS:
        page.open("about:blank")
        page.open(runs_page(mlflow_server, "1"), width=width)
        page.wait_for(f"{text}.includes('8 matching runs') && {text}.includes('dvc repro 2026-11-26 01:00')")
        assert "seed 0" not in page.evaluate(text), "trainings are below the executions"
        assert own_faults(page) == []
    found = mlflow.MlflowClient(database).search_runs(["1"], "attributes.run_name LIKE '%seed%'")
    assert sorted(run.info.run_name for run in found) == sorted(names)
    ids = json.dumps([run.info.run_id for run in found])
    for width in WIDTHS:
        page.open("about:blank")
        page.open(
            f"{mlflow_server}/#/compare-runs?runs={ids}&experiments=[%221%22]&workflowType=machine_learning",
            width=width,
        )
        page.wait_for(f"{text}.includes('Comparing 6 Runs') && {text}.includes('training.optimizer.lr')")
        shown = page.evaluate(text)
        assert all(name in shown for name in [*names, "body/AP", "face/NME"])
        assert own_faults(page) == []

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

import pytest

from pipelines.report.html import to_html
from pipelines.report.parts import Inspector, Report, Section
from tests.browser import Page, browser, needs_chromium
from tests.pipelines.test_report import everything
from tests.pipelines.test_report_inspector import picture

pytestmark = needs_chromium
WIDTHS = (1280, 400)


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
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A server with six small runs: its address, and the runs' ids."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    database = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(database)
    experiment = client.create_experiment(
        "tcformer", str(folder / "files"), tags={"mlflow.experimentKind": "custom_model_development"}
    )
    runs = []
    for number in range(6):
        run = client.create_run(experiment, run_name=f"wholebody seed {number}").info.run_id
        client.log_param(run, "training.seed", number)
        client.log_metric(run, "body/AP", 0.3 + number / 100)
        for step in range(3):
            client.log_metric(run, "loss", 1 / (1 + step), step=step)
        client.set_terminated(run)
        runs.append(run)
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
        yield address, runs
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
        log.close()


def own_faults(page: Page) -> list[str]:
    """Faults but one: a server without accounts answers 404 to the page's question for the present user."""
    return [fault for fault in page.faults() if "/mlflow/users/current" not in fault]


@pytest.mark.slow
@pytest.mark.long
def test_mlflow_shows_runs_and_compares_them(page: Page, mlflow_server: tuple[str, list[str]]) -> None:
    address, runs = mlflow_server
    training = "workflowType=machine_learning"  # what `Model training` at the upper left sets
    text = "document.body.innerText"
    for width in WIDTHS:
        page.open("about:blank")
        page.open(f"{address}/#/experiments/1/runs?{training}", width=width)
        page.wait_for(f"{text}.includes('6 matching runs') && {text}.includes('wholebody seed 5')")
        assert own_faults(page) == []
    page.open("about:blank")
    page.open(f"{address}/#/compare-runs?runs={json.dumps(runs)}&experiments=[%221%22]&{training}")
    page.wait_for(f"{text}.includes('Comparing 6 Runs') && {text}.includes('training.seed')")
    assert own_faults(page) == []

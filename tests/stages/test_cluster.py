"""The same stages on a Ray that runs already, joined by its address and by jobs that are submitted."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.early]
PORT, DASHBOARD, AGENT = "26379", "28265", "28266"


@pytest.fixture
def cluster(workplace: Workplace, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a Ray head on loopback with token authentication."""
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    Path(environment["RAY_AUTH_TOKEN_PATH"]).write_text("0123456789abcdef" * 4)
    # In the foreground, so that its processes are known and ended by number.
    process = workplace.start(
        *("ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", PORT, "--num-cpus", "3"),
        # Ports of its own: another Ray of this machine may have the default ones.
        *("--dashboard-agent-listen-port", AGENT),
        *("--dashboard-port", DASHBOARD, "--temp-dir", f"/tmp/ray-test-{os.getpid()}"),
        **environment,
        TMPDIR=str(tmp_path),  # where submitted jobs run
    )
    family = psutil.Process(process.pid)
    try:
        deadline = time.monotonic() + 180
        ready = ("ray", "job", "list", "--address", f"http://127.0.0.1:{DASHBOARD}")
        while True:
            trial = workplace.start(*ready, **environment)
            trial.communicate()
            if trial.returncode == 0:
                break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(1)
        yield environment
    finally:
        children = family.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def test_a_running_cluster_and_a_submitted_job(workplace: Workplace, cluster: dict[str, str]) -> None:
    workplace.run("python", "-m", "stages.prepare", "imagenet", RAY_ADDRESS=f"127.0.0.1:{PORT}", **cluster)
    printed = workplace.run("python", "-m", "stages.pretrain", RAY_ADDRESS=f"127.0.0.1:{PORT}", **cluster)
    assert "2 cpu workers" in printed
    trained = workplace.folder / "runs" / "sample" / "pretrain" / "model.safetensors"
    first = trained.read_bytes()
    trained.unlink()
    command = f"cd '{workplace.folder}' && python -m stages.pretrain --fresh"
    job = ("ray", "job", "submit", "--address", f"http://127.0.0.1:{DASHBOARD}", "--", "bash", "-c", command)
    deadline = time.monotonic() + 90
    while True:
        submitted = workplace.start(*job, **cluster)
        printed, _ = submitted.communicate(timeout=600)
        # On a busy machine the head's job agent is ready a little later than the head.
        if "No available agent" not in printed or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert submitted.returncode == 0 and "succeeded" in printed, printed
    assert trained.read_bytes() == first


def test_a_submitted_graph_comes_back_and_a_stopped_training_resumes(
    workplace: Workplace, cluster: dict[str, str]
) -> None:
    """`tcformer submit`, from a folder that the job does not use: nothing is there before but the code."""
    folder = workplace.folder
    workplace.set(sample__finetune__face__training__epochs=6, sample__finetune__face__initial="initial.safetensors")
    tcformer.save_model(
        tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), folder / "initial.safetensors"
    )
    workplace.run("git", "init", "--quiet")
    workplace.run("dvc", "init", "--quiet")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    workplace.run("git", "add", "-A")
    workplace.run("git", *identity, "commit", "--quiet", "-m", "sent")
    address = ("--address", f"http://127.0.0.1:{DASHBOARD}")
    submit = ("python", "-m", "stages.cli", "submit", *address)

    printed = workplace.run(*submit, "--", "dvc", "repro", "prepare@face", **cluster)
    assert "0 problems" in printed and "checked out: prepare@face" in printed, printed

    train = ("--no-doctor", "--env", "TCFORMER_FAULT=slow:0:3", "--", "python", "-m", "stages.finetune", "face")
    process = workplace.start(*submit, *train, **cluster)
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "2 cpu workers" in line:
            time.sleep(3)
            process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, "".join(lines)
    assert "with a checkpoint" in "".join(lines) and not (folder / "runs/sample/finetune").exists()
    printed = workplace.run("python", "-m", "stages.cli", "jobs", "list", *address, **cluster)
    assert [line.split()[1] for line in printed.splitlines()] == ["SUCCEEDED", "STOPPED"]

    printed = workplace.run(*submit, "--no-doctor", "--", "python", "-m", "stages.finetune", "face", **cluster)
    assert "resumed after step" in printed, printed
    provenance = json.loads((folder / "runs/sample/finetune/face/provenance.json").read_text())
    assert provenance and (folder / "metrics/sample/finetune-face.json").is_file()

    wrong = {**cluster, "RAY_AUTH_TOKEN_PATH": str(folder / "params.yaml")}
    printed = workplace.run("python", "-m", "stages.cli", "jobs", "list", *address, status=2, **wrong)
    assert "error: the Ray at" in printed and "refuses the token (wrong)" in printed, printed
    printed = workplace.run("python", "-m", "stages.cli", "jobs", "stop", "nonsense", *address, status=2, **cluster)
    assert "error: no job nonsense" in printed, printed

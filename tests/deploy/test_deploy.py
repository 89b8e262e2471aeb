"""The files in deploy/: valid by the schemas of the tools that read them, and in agreement with the code."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.adapters.jobs import DEFAULT_ADDRESS
from pipelines.training.sampling import usable_workers
from tcformer.errors import UserError
from tcformer.extras import EXTRAS
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
PORT = int(DEFAULT_ADDRESS.rpartition(":")[2])


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def ray_version() -> str:
    match = re.search(r"^ray==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert match
    return match[1]


def schema() -> Any:
    return json.loads((Path(__file__).parent / "raycluster.schema.json").read_text(encoding="utf-8"))


def test_the_cluster_of_kubernetes_has_the_operators_fields() -> None:
    cluster, policy = documents("kuberay.yaml")
    jsonschema.validate(cluster, schema())
    assert cluster["spec"]["rayVersion"] == ray_version()
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": selected}}]}], "nobody else"


def test_the_check_of_its_fields_finds_a_misspelt_one() -> None:
    cluster = documents("kuberay.yaml")[0]
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = cluster["spec"]["workerGroupSpecs"][0].pop("maxReplicas")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, schema())


def test_pods_agree_with_the_image_and_the_ports() -> None:
    cluster = documents("kuberay.yaml")[0]["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    tag = re.search(r"docker build .* -t (\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    assert tag
    for group in groups:
        pod = group["template"]["spec"]
        container = pod["containers"][0]
        assert container["image"] == tag[1]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["securityContext"]["runAsUser"] == 1000
    assert PORT in {port["containerPort"] for port in groups[0]["template"]["spec"]["containers"][0]["ports"]}
    assert documents("ray-cluster.yaml")[0]["docker"]["image"] == tag[1]


def test_the_file_for_ray_up_has_rays_fields_and_a_token() -> None:
    config = documents("ray-cluster.yaml")[0]
    spec = importlib.util.find_spec("ray")
    assert spec and spec.origin
    of_ray = json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text(encoding="utf-8"))
    # Fields of machines of one's own, which Ray replaces by node types before it checks the rest.
    workers = [config.pop("min_workers"), config["max_workers"]]
    jsonschema.validate(config, of_ray)
    assert workers == [len(config["provider"]["worker_ips"])] * 2
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token ray start" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1], "the dashboard is reached through SSH"


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="hadolint is not installed there")
def test_the_dockerfile_is_linted() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_the_pinned_environment_and_no_code() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    # Docker joins lines that end with a backslash.
    program = re.search(r"^RUN python -c '(.*?)' >", text, re.MULTILINE | re.DOTALL)
    assert program
    command = [sys.executable, "-c", program[1].replace("\\\n", "")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    installed = {canonicalize_name(Requirement(line).name) for line in done.stdout.splitlines()}
    names = packages_distributions()
    needed = [module for module, extra in EXTRAS.items() if extra in ("data", "pipeline")]
    absent = [module for module in needed if not {canonicalize_name(name) for name in names[module]} & installed]
    assert not absent and "tcformer" not in installed
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert installed <= set(map(canonicalize_name, pinned))
    copied = re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE)
    assert copied == ["pyproject.toml constraints.txt"]
    assert "RAY_AUTH_MODE=token" in text and re.search(r"^USER 1000$", text, re.MULTILINE)
    home = re.search(r"--home-dir (\S+) ", text)
    assert home and f"WORKDIR {home[1]}\n" in text
    assert f"{home[1]}/.ray/auth_token" in documents("ray-cluster.yaml")[0]["file_mounts"]
    version = re.search(r"^FROM python:([\d.]+)", text, re.MULTILINE)
    assert version and version[1] in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["deploy/kuberay.yaml", "deploy/slurm.sbatch", "docs/clusters.md"])
def test_every_training_of_the_paper_has_room_on_64_gpus_with_the_workers_that_the_files_name(name: str) -> None:
    ranges = re.findall(r"\{min: (\d+), max: (\d+)\}", (ROOT / name).read_text(encoding="utf-8"))
    assert ranges == [("16", "64")]
    paper = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["paper"]
    batches = [section["training"]["global_batch"] for section in (paper["pretrain"], *paper["finetune"].values())]
    assert [usable_workers(batch, 16, 64)[-1] for batch in batches] == [64, 64, 16, 64]
    with pytest.raises(UserError, match="16"):
        usable_workers(16, 64, 64)


# The Slurm script, with stubs of the programs that it starts.

STUBS = {
    "scontrol": 'printf "node1\\nnode2\\nnode3\\n"',
    "srun": """echo "srun $*" >> log
for word; do [[ $word == hostname ]] && { echo "10.0.0.1 172.17.0.1"; exit; }; done
exec sleep 60""",
    "python": """if [[ $1 == -c ]]; then exec "$PYTHON" "$@"; fi
echo "python $* RAY_ADDRESS=$RAY_ADDRESS token=${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> log
[[ $* != *doctor* || ! -f sick ]]""",
    "dvc": """echo "dvc $* RAY_ADDRESS=$RAY_ADDRESS" >> log
[[ -z $DVC_WAITS ]] || exec "$PYTHON" -c "$DVC_WAITS"
exit ${DVC_STATUS:-0}""",
}
#: A command that takes a checkpoint. In bash it would lose a SIGINT that comes as one of its own commands ends.
WAITS = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.2)
    with open("log", "a") as log:
        print("checkpoint", file=log)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
pathlib.Path("ready").touch()
time.sleep(20)
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder in which the script runs, with the stubs first on the PATH."""
    (tmp_path / "bin").mkdir()
    for name, text in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f"#!/bin/bash\n{text}\n")
        stub.chmod(0o755)
    return tmp_path


def start(job: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    variables = {
        "PATH": f"{job / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_SUBMIT_DIR": str(job),
        **environment,
    }
    arguments = ["bash", str(DEPLOY / "slurm.sbatch"), *command]
    return subprocess.Popen(arguments, cwd=job, env=variables, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str], job: Path) -> tuple[int, list[str]]:
    assert process.communicate(timeout=30)[1] == ""
    return process.returncode, (job / "log").read_text().splitlines()


def test_slurm_starts_a_head_and_the_other_nodes_and_runs_the_command(job: Path) -> None:
    status, log = finished(start(job, DVC_STATUS="7"), job)
    assert status == 7, "the command's"
    address = "10.0.0.1:24567"
    starts = [line for line in log if "ray start" in line]
    head = next(line for line in starts if "--head" in line)
    assert "--nodelist=node1 " in head and "--node-ip-address=10.0.0.1 --port=24567" in head
    workers = next(line for line in starts if "--head" not in line)
    assert "--nodes=2 --ntasks=2 --nodelist=node2,node3 " in workers and f"--address={address}" in workers
    rest = [line for line in log if not line.startswith("srun")]
    assert rest == [
        f"python -m pipelines.cluster.wait 3 RAY_ADDRESS={address} token=64 token",
        f"python -m stages.cli doctor RAY_ADDRESS={address} token=64 token",
        f"dvc repro RAY_ADDRESS={address}",
    ]


def test_slurm_runs_another_command_and_nothing_if_a_node_is_sick(job: Path) -> None:
    status, log = finished(start(job, "dvc", "status", "a b"), job)
    assert status == 0 and any(line.startswith("dvc status a b ") for line in log)
    (job / "log").unlink()
    (job / "sick").touch()
    status, log = finished(start(job), job)
    assert status == 1 and not any(line.startswith("dvc") for line in log)


@pytest.mark.slow
def test_slurms_warning_before_the_time_limit_takes_a_checkpoint(job: Path) -> None:
    process = start(job, DVC_WAITS=WAITS)
    deadline = time.monotonic() + 20
    while not (job / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    status, log = finished(process, job)
    assert status == 130 and "checkpoint" in log

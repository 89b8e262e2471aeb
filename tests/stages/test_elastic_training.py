"""A training on two nodes, one of which is lost and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.long]

#: Keeps a cluster of two nodes with one core each, and removes or adds the second one as a line of its input says.
CLUSTER = """
import sys
from pipelines.adapters.ray_environment import prepare_environment
prepare_environment(local=True)
from ray.cluster_utils import Cluster
place = {"num_cpus": 1, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**place, "temp_dir": sys.argv[1]})
node = cluster.add_node(**place)
print("address", cluster.address, flush=True)
for line in sys.stdin:
    if line == "remove\\n":
        cluster.remove_node(node, allow_graceful=False)
    else:
        node = cluster.add_node(**place)
    print("done", flush=True)
cluster.shutdown()
"""


class TwoNodes:
    """A cluster on this machine, whose workers need a second for each step."""

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        (folder / "token").write_text("0123456789abcdef" * 4)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only
            "GLOO_SOCKET_IFNAME": "lo",
            # Ray would copy the code to each node; here a node that ends would delete the copy of both.
            "TCFORMER_SHARED_RAY": "1",
        }
        code = folder / "cluster.py"
        code.write_text(CLUSTER)
        variables = {
            **os.environ,
            **self.environment,
            "PYTHONPATH": str(workplace.folder),
            "TCFORMER_FAULT": "slow:0:1",
        }
        for _ in range(3):  # on a busy machine Ray does not start within its own time limit
            with (folder / "errors").open("w") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, str(code), f"/tmp/ray-elastic-{os.getpid()}"],
                    env=variables,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            address = self._read("address")
            if address:
                self.environment["RAY_ADDRESS"] = address.split()[1]
                return
            self.close()
        raise AssertionError((folder / "errors").read_text())

    def tell(self, line: str) -> None:
        """Have the second node removed or added."""
        assert self._process.stdin
        print(line, file=self._process.stdin, flush=True)
        assert self._read("done")

    def _read(self, beginning: str) -> str:
        assert self._process.stdout
        return next((line for line in self._process.stdout if line.startswith(beginning)), "")

    def close(self) -> None:
        """End all its processes."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture
def cluster(workplace: Workplace, tmp_path: Path) -> Iterator[TwoNodes]:
    found = TwoNodes(workplace, tmp_path)
    yield found
    found.close()


def test_a_training_shrinks_and_grows_with_its_cluster(workplace: Workplace, cluster: TwoNodes) -> None:
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    settings = {
        "initial": str(initial),
        "training__epochs": 40,
        "training__global_batch": 8,
        "training__checkpoint_every": 4,
        "training__log_every": 4,
        "training__validate_every": 40,
    }
    workplace.set(
        cluster__workers={"min": 1, "max": 2},
        **{f"sample__finetune__face__{name}": value for name, value in settings.items()},
    )
    workplace.run("python", "-m", "stages.prepare", "face", "--local")
    process = workplace.start("python", "-m", "stages.finetune", "face", **cluster.environment)
    assert process.stdout
    printed: list[str] = []

    def read_until(text: str) -> None:
        assert process.stdout
        for line in process.stdout:
            printed.append(line)
            if text in line:
                return
        raise AssertionError("".join(printed))

    read_until("2 cpu workers")
    checkpoints = workplace.folder / "runs" / "sample" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/step-*/manifest.json")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    cluster.tell("remove")
    read_until("goes on with 1 of 2 workers; node 127.0.0.1 was lost")
    read_until("1 cpu worker ")
    cluster.tell("add")
    read_until("there is room for 2 workers")
    read_until("2 cpu workers")
    rest, _ = process.communicate(timeout=200)
    printed.append(rest)
    text = "".join(printed)
    assert process.returncode == 0, text
    assert "a worker was lost, failure 1 of at most 3: restarting" in text and "resumed after step" in text
    assert all(line.startswith("finetune@face: ") for line in text.splitlines() if line.strip()), text
    metrics = json.loads((workplace.folder / "runs" / "sample" / "finetune" / "face" / "metrics.json").read_text())
    assert metrics["steps"] == 40

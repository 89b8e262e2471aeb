"""Run a command with one Ray for all the processes that it starts: `python -m pipelines.shared_ray -- dvc repro`.

Starting Ray takes seconds; a DVC run starts a process for each stage. Where RAY_ADDRESS is set, that Ray is used and
the command just runs.
"""

import os
import subprocess
import sys

from pipelines.adapters.ray import SHARED, address_of_session, session
from pipelines.layout import ROOT, dvc_environment
from pipelines.params import load_params
from pipelines.running.process import stage_main


def main() -> int:
    """Run the command after `--` and return its exit status."""
    command = sys.argv[sys.argv.index("--") + 1 :]
    cluster = load_params(ROOT / "params.yaml").cluster
    if cluster.address or os.environ.get("RAY_ADDRESS"):
        return subprocess.run(command, env={**os.environ, **dvc_environment()}, check=False).returncode
    with session(cluster):
        environment = {**os.environ, **dvc_environment(), "RAY_ADDRESS": address_of_session(), SHARED: "1"}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    stage_main(main)

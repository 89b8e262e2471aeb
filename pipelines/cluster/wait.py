"""Wait until a Ray has all its nodes: `python -m pipelines.cluster.wait 8` before a command in a Slurm job."""

import os
import sys

from pipelines.adapters.nodes import wait_for_nodes
from pipelines.running.process import stage_main
from tcformer.errors import UserError

SECONDS = 600.0


def main() -> None:
    """Wait for the number of nodes that the command line names."""
    number = sys.argv[1] if len(sys.argv) == 2 else ""
    if not number.isdigit() or not os.environ.get("RAY_ADDRESS"):
        raise UserError("expected a number of nodes, and RAY_ADDRESS set: python -m pipelines.cluster.wait 8")
    wait_for_nodes(os.environ["RAY_ADDRESS"], int(number), SECONDS)


if __name__ == "__main__":
    stage_main(main)

"""The execution of the graph that a stage belongs to: one `dvc repro`, or one experiment of DVC."""

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath

import psutil


@dataclass(frozen=True)
class Execution:
    """One execution of the graph.

    Attributes:
        identity: the same for all stages that one DVC process starts, and for no others.
        name: shown in MLflow.
    """

    identity: str
    name: str


def experiment_name() -> str:
    """Name of the DVC experiment that this stage runs in; "" outside of experiments."""
    return os.environ.get("DVC_EXP_NAME", "")


def current_execution() -> Execution | None:
    """The execution that this stage belongs to; None if DVC did not start it."""
    if "DVC_STAGE" not in os.environ:  # DVC sets it for every stage
        return None
    try:
        for process in psutil.Process().parents():
            if "dvc" in (PurePath(argument).name for argument in process.cmdline()[:3]):
                # A process id alone is used again. One worker of DVC's queue runs several experiments.
                started, experiment = process.create_time(), experiment_name()
                identity = f"{socket.gethostname()}-{process.pid}-{started:.2f}-{experiment}".rstrip("-")
                return Execution(identity, experiment or f"dvc repro {datetime.fromtimestamp(started):%Y-%m-%d %H:%M}")
    except psutil.Error:  # a process has ended meanwhile, or may not be read
        pass
    return None

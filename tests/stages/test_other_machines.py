"""Stages on a machine with a long TMPDIR and a home folder that cannot be written, through the real Ray."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import pytest

import tcformer
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.long]


def open_to_others(process: psutil.Process) -> set[str]:
    """Addresses off loopback at which a process and its descendants listen."""
    found = set()
    with suppress(psutil.Error):  # it has ended meanwhile
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                for connection in each.net_connections(kind="tcp"):
                    address = connection.laddr.ip.removeprefix("::ffff:") if connection.laddr else ""
                    if connection.status == psutil.CONN_LISTEN and address not in ("127.0.0.1", "::1"):
                        found.add(f"{address} {' '.join(each.cmdline())[:80]}")
    return found


def test_a_training_works_and_listens_on_loopback_alone(workplace: Workplace) -> None:
    long = workplace.folder.parent / ("x" * 80)
    long.mkdir()
    machine = {"TMPDIR": str(long), "HOME": "/proc/nohome"}
    initial = workplace.folder / "initial.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=12), initial)
    workplace.set(sample__finetune__face__initial=str(initial), sample__finetune__face__training__epochs=2)
    workplace.run("python", "-m", "stages.prepare", "face", "--local", **machine)
    process = workplace.start("python", "-m", "stages.finetune", "face", **machine)
    family = psutil.Process(process.pid)
    found: set[str] = set()
    while process.poll() is None:
        found |= open_to_others(family)
        time.sleep(0.3)
    printed = process.communicate()[0]
    assert process.returncode == 0 and "Traceback" not in printed, printed
    assert "its sockets need a shorter path" in printed
    assert not found

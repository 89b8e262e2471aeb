"""The GPU benchmark without a GPU: it says so and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_says_that_there_is_no_gpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--batches", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1 and "PyTorch finds none here" in run.stderr

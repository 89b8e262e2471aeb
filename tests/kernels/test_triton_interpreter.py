"""Run the tests of the Triton kernels in Triton's interpreter, which needs no GPU, in a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("test_triton.py")
ROOT = Path(__file__).resolve().parents[2]

# One case of each kind, which takes ten seconds; all cases take a minute or two.
FEW = (
    "(random_features and shape0) or image_without_tokens or segment_sum or row_dots or (token_conv and 512 and case1)"
)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is already on in this process")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("selected", "min_passed"),
    [pytest.param(FEW, 15, id="few"), pytest.param("test", 60, id="all", marks=pytest.mark.long)],
)
def test_kernels_in_the_interpreter(selected: str, min_passed: int) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, "-rA", str(TESTS)]
    # One thread, because the tensors are small, and threads that wait for each other slow down the whole machine.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(re.findall(r"^PASSED ", run.stdout, re.MULTILINE)) >= min_passed, run.stdout

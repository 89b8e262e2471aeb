"""The choice of the backend, and the conflict with another package of the same name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import dpc_knn
from kernels.backend import choose_backend
from kernels.name_conflict import refuse_foreign_package

ROOT = Path(__file__).resolve().parents[2]


def test_backend_is_chosen_by_argument_then_environment_then_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TCFORMER_KERNELS", raising=False)
    cpu = torch.device("cpu")
    assert choose_backend(None, cpu) in ("native", "torch")
    monkeypatch.setenv("TCFORMER_KERNELS", "reference")
    assert choose_backend(None, cpu) == "reference"
    assert choose_backend("torch", cpu) == "torch"
    monkeypatch.setenv("TCFORMER_KERNELS", "fpga")
    with pytest.raises(ValueError, match=r"unknown backend 'fpga' \(environment variable TCFORMER_KERNELS\): expected"):
        dpc_knn(torch.zeros(1, 4, 2), 1)
    with pytest.raises(ValueError, match=r"unknown backend 'gpu' \(argument backend\): expected one of reference"):
        dpc_knn(torch.zeros(1, 4, 2), 1, backend="gpu")
    monkeypatch.setenv("TCFORMER_KERNELS", "native")
    with pytest.raises(ValueError, match=r"'native' \(environment .*\) cannot run here: it needs tensors on a CPU"):
        choose_backend(None, torch.device("meta"))


def test_the_import_is_refused_if_it_hides_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_foreign_package()
    monkeypatch.setattr("kernels.name_conflict.version", lambda name: {"kernels": "0.9"}[name])
    with pytest.raises(ImportError, match=r"version 0\.9.*pip uninstall kernels"):
        refuse_foreign_package()


@pytest.mark.slow
def test_the_network_refuses_another_package_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/__init__.py").write_text("def get_kernel(): ...\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import tcformer; tcformer.create_model"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode != 0
    assert "TCFormer needs its own package 'kernels'" in run.stderr

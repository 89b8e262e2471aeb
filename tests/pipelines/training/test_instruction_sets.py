"""Trainings and evaluations that compute with chosen instruction sets, or say why they cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.adapters.ray import session
from pipelines.datasets.prepared import Prepared
from pipelines.driver.plan import TrainingPlan
from pipelines.params import load_params
from pipelines.training import instruction_sets
from pipelines.training.instruction_sets import check_instruction_sets, environment_for, use_instruction_sets
from tcformer.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PARAMS = load_params(ROOT / "params.yaml")


def has_avx2() -> bool:
    return set(instruction_sets.cpu()["instruction_sets"].split()) >= instruction_sets._NEEDED


def run_code(code: str, **environment: str) -> str:
    """What a process of its own prints; it has none of the variables but the given ones."""
    inherited = {name: value for name, value in os.environ.items() if name not in environment_for("avx2")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("sets", ["sse4_1 avx", "avx2", "fma", "asimd sve", ""])
def test_a_cpu_without_avx2_is_named(monkeypatch: pytest.MonkeyPatch, sets: str) -> None:
    monkeypatch.setattr(instruction_sets, "cpu", lambda: {"model": "Some Old CPU", "instruction_sets": sets})
    before = dict(os.environ)
    for function in (use_instruction_sets, check_instruction_sets):
        with pytest.raises(UserError, match=r"instruction_sets is avx2, which this CPU \(Some Old CPU\) does not have"):
            function("avx2")
        function("native")
    assert dict(os.environ) == before


@pytest.mark.skipif(not has_avx2(), reason="needs a CPU with AVX2")
def test_workers_without_the_environment_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment_for("avx2"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"instruction_sets is avx2, but PyTorch uses .*MKL_CBWR"):
        check_instruction_sets("avx2")


@pytest.mark.slow
@pytest.mark.skipif(not has_avx2(), reason="needs a CPU with AVX2")
def test_a_stage_uses_and_describes_avx2() -> None:
    code = (
        "import json, stages.evaluate, pipelines.driver.run\n"  # what a stage has imported by then
        "from pipelines.training.instruction_sets import effective_settings, use_instruction_sets\n"
        "use_instruction_sets('avx2'); print(json.dumps(effective_settings('avx2')))"
    )
    described = json.loads(run_code(code, TCFORMER_NATIVE="0"))
    assert described["chosen"] == "avx2" and described["pytorch"] == "AVX2"
    assert described["token_operations"] == "PyTorch (the environment variable TCFORMER_NATIVE is 0)"
    assert {name: described[name] for name in environment_for("avx2")} == environment_for("avx2")


@pytest.mark.slow
@pytest.mark.skipif(not has_avx2(), reason="needs a CPU with AVX2")
def test_the_operations_for_all_cpus_compute_the_same_up_to_rounding() -> None:
    code = (
        "import json, torch; from kernels import native; torch.manual_seed(0)\n"
        "x, w = torch.randn(2, 49, 24), torch.randn(24, 1, 3, 3)\n"
        "y = native.grid_conv(x, w, torch.randn(24), torch.randn(24), (7, 7), True)\n"
        "print(json.dumps([native.target(), native.dpc_knn(x, 7, 5)[1].tolist(), y.flatten().tolist()]))"
    )
    here, clusters, values = json.loads(run_code(code))
    there, same_clusters, close_values = json.loads(run_code(code, **environment_for("avx2")))
    assert (here, there) == ("native", "avx2")
    assert clusters == same_clusters
    assert values == pytest.approx(close_values, rel=1e-4, abs=1e-5)


def test_the_identity_of_a_training_has_chosen_instruction_sets(tmp_path: Path) -> None:
    def key(**options: Any) -> str:
        section = PARAMS.sample.training_of("face")
        data = Prepared(tmp_path, "0", False)
        return TrainingPlan(PARAMS.sample.spec_of("face"), section.training, data, None, **options).key

    assert key() == key(instruction_sets="native")
    assert key() != key(instruction_sets="avx2")


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_ray_gives_workers_the_environment(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.init", lambda *address, **options: calls.append(options))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    for name in ("TCFORMER_LOCAL", "RAY_ADDRESS", "TCFORMER_SHARED_RAY", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pipelines.adapters.ray.prepare_environment", lambda local: None)
    cluster = PARAMS.cluster.model_copy(update={"address": address})
    with session(cluster, environment_for("avx2")), session(cluster):
        pinned, native = calls
    assert pinned["runtime_env"]["env_vars"] == environment_for("avx2")
    assert "env_vars" not in (native["runtime_env"] or {})
    for options in calls:
        assert ("working_dir" in (options["runtime_env"] or {})) == (address is not None)


def test_stages_that_run_networks_depend_on_the_parameter() -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    depend = {name for name, entry in stages.items() if "instruction_sets" in entry.get("do", entry)["params"]}
    assert depend == {"pretrain", "finetune", "evaluate", "visualize"}

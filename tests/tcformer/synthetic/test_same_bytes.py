"""Generated datasets are the same bytes on every x86-64 CPU."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tcformer.synthetic
from tcformer.files import sha256_of_json
from tcformer.synthetic.exact import arctangent2, cosine, dot, exponential, product, sine
from tests.generated import HASHES, SETS, contents, crops, numpy_features, opencv_features

ROOT = Path(__file__).parents[3]
FIXTURES = {"face": "faces", "imagenet": "imagenet", "mesh": "mesh", "wholebody": "wholebody"}


def oldest_cpu(cache: Path) -> dict[str, str]:
    """Environment variables that let each library use only what every x86-64 CPU has; `cache`: for numba's code."""
    return {
        "OPENCV_CPU_DISABLE": ",".join([*opencv_features(), "FMA3"]),
        "OPENCV_IPP": "disabled",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": ",".join(numpy_features()),
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(cache),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-AVX2_Usable,-FMA_Usable,-FMA4_Usable",
        "JSIMD_FORCENONE": "1",  # libjpeg-turbo
    }


@pytest.mark.parametrize("task", SETS)
def test_recorded_hashes(task: str, request: pytest.FixtureRequest) -> None:
    """If this fails only on another machine, a generator uses something whose bits depend on the CPU."""
    found = sha256_of_json(contents(request.getfixturevalue(FIXTURES[task])))
    assert found == json.loads(HASHES.read_text())[task], (
        "generated data changed; if that is intended: python -m tests.generated --record, and a line in CHANGELOG.md"
    )


def test_recorded_hash_of_crops() -> None:
    assert crops() == json.loads(HASHES.read_text())["crops"]


@pytest.mark.slow
def test_the_oldest_cpu_makes_the_same_bytes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.generated", str(tmp_path / "sets")],
        env={**os.environ, **oldest_cpu(tmp_path / "cache")},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    made = json.loads(done.stdout)
    assert made["features"] == []
    assert made["crops"] == crops()
    for task, fixture in FIXTURES.items():
        expected = contents(request.getfixturevalue(fixture))
        assert set(made["sets"][task]) == set(expected)
        assert not [name for name, sha256 in expected.items() if made["sets"][task][name] != sha256]


def test_no_generator_calls_blas_or_libm() -> None:
    """Matrix products and elementary functions of NumPy and math have other bits on other CPUs."""
    allowed = {"sqrt", "radians", "degrees", "prod", "pi", "ldexp"}
    refused = {"sin", "cos", "tan", "exp", "log", "arctan2", "arcsin", "arccos", "power", "dot", "matmul", "linalg"}
    for path in Path(*tcformer.synthetic.__path__).glob("*.py"):
        if path.name == "fit_regressors.py":  # its result is committed
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), place
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "np" and node.attr in refused), place
                assert not (node.value.id == "math" and node.attr not in allowed), place


def test_elementary_functions() -> None:
    """They differ from NumPy's by two units in the last place at most."""
    rng = np.random.default_rng(0)
    angles, (x, y) = rng.uniform(-2000, 2000, 3000), rng.normal(0, 1, (2, 3000))
    for mine, numpys in ((sine, np.sin), (cosine, np.cos)):
        np.testing.assert_array_max_ulp(np.array([mine(a) for a in angles]), numpys(angles), 2)
    np.testing.assert_array_max_ulp(np.array([exponential(a / 4) for a in angles]), np.exp(angles / 4), 2)
    turned = np.array([arctangent2(b, a) for a, b in zip(x, y, strict=True)])
    np.testing.assert_array_max_ulp(turned, np.arctan2(y, x), 2)
    for b, a in ((0.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0), (1.0, 1.0), (-1.0, -1.0)):
        assert arctangent2(b, a) == pytest.approx(np.arctan2(b, a), abs=1e-15)
    assert (sine(0.0), cosine(0.0), exponential(0.0), exponential(-1e4)) == (0.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="up to 700"):
        exponential(701.0)


def test_products() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(0, 1, (3, 3, 3))
    np.testing.assert_allclose(product(a, b.T, c), a @ b.T @ c, atol=1e-14)
    np.testing.assert_allclose(product(a.T, b, c[:, 1]), a.T @ b @ c[:, 1], atol=1e-14)
    assert dot(a[0], b[:, 1]) == pytest.approx(a[0] @ b[:, 1])

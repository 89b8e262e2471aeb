from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernels import native
from kernels.native import build

ROOT = Path(__file__).resolve().parents[2]
REPORT = "from kernels import native; print(native.available(), native.reason())"


def start(folder: Path, code: str = REPORT, **environment: str) -> subprocess.Popen[str]:
    """A process whose extensions lie in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """What it printed, and the lines of its warnings."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip(), err.splitlines()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def compiler() -> str:
    try:
        return build._compiler()[0]
    except build.BuildError as error:
        pytest.skip(str(error))


def test_import_compiles_nothing(tmp_path: Path) -> None:
    assert finish(start(tmp_path, "import kernels, kernels.native")) == ("", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"CXX": "no-such-compiler"}, "the compiler 'no-such-compiler' that CXX names was not found"),
        ({"CXX": "", "PATH": "/nowhere"}, "no C++ compiler was found (looked for c++, g++, clang++)"),
        ({"CXX": "false"}, "false failed: ?"),
    ],
)
def test_without_a_compiler(tmp_path: Path, environment: dict[str, str], why: str) -> None:
    code = f"{REPORT}; native.available()"
    printed, warnings = finish(start(tmp_path, code, **environment))
    assert printed == f"False {why}"
    assert warnings == [f"Token operations run in plain PyTorch, which is slower: {why}."]


def test_compiler_error_is_quoted(tmp_path: Path) -> None:
    failing = script(tmp_path / "cxx", "echo 'In file a.cpp:' >&2; echo 'a.cpp:1: error: no such header' >&2; exit 1")
    printed, _ = finish(start(tmp_path / "cache", CXX=failing))
    assert printed == f"False {failing} failed: a.cpp:1: error: no such header"
    assert [path.name for path in tmp_path.glob("cache/*/*")] == ["lock"]  # nothing half made is left


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    printed, warnings = finish(start(tmp_path / "file"))
    assert printed.startswith(f"False {tmp_path / 'file'}")
    assert "cannot be used" in printed and len(warnings) == 1


def test_turned_off(tmp_path: Path) -> None:
    expected = "False the environment variable TCFORMER_NATIVE is 0"
    assert finish(start(tmp_path, TCFORMER_NATIVE="0")) == (expected, [])
    assert not list(tmp_path.iterdir())


def test_calling_what_is_not_available(tmp_path: Path) -> None:
    code = (
        "import torch; from kernels import native\n"
        "try: native.dpc_knn(torch.zeros(1, 4, 2), 1, 5)\n"
        "except RuntimeError as error: print(error)"
    )
    printed, _ = finish(start(tmp_path, code, TCFORMER_NATIVE="0"))
    assert printed == "the C++ token operations are not available: the environment variable TCFORMER_NATIVE is 0"


@pytest.mark.slow
def test_processes_that_build_at_once(tmp_path: Path, compiler: str) -> None:
    counting = script(tmp_path / "cxx", f'echo >> "{tmp_path / "calls"}"; exec "{compiler}" "$@"')
    for process in [start(tmp_path / "cache", CXX=counting) for _ in range(2)]:
        assert finish(process) == ("True", [])
    assert finish(start(tmp_path / "cache", CXX=counting)) == ("True", [])
    assert (tmp_path / "calls").read_text() == "\n"  # one compilation for all three

    # What was damaged later is compiled again.
    (library,) = tmp_path.glob("cache/*/native.so")
    library.unlink()
    library.write_bytes(b"damaged")
    assert finish(start(tmp_path / "cache", CXX=counting)) == ("True", [])
    assert (tmp_path / "calls").read_text() == "\n\n"


def test_a_killed_build_does_not_block_the_next(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = script(tmp_path / "slow", f'echo $$ > "{pid}.new"; mv "{pid}.new" "{pid}"; exec sleep 300')
    killed = start(tmp_path / "cache", CXX=slow)
    while not pid.exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    try:
        assert finish(start(tmp_path / "cache", CXX="false"))[0] == "False false failed: ?"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_another_cpu_has_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    own = build._fingerprint()
    assert own == build._fingerprint()
    monkeypatch.setattr(build, "_cpu", lambda: ["flags: sse2"])
    assert build._fingerprint() != own


def test_reason_is_empty_where_available() -> None:
    assert native.available() == (native.reason() == "")

"""Compiling and loading the C++ library: in processes of their own, with caches of their own."""

from __future__ import annotations

import os
import re
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
#: What `make` runs after the installation, which goes on if there is no compiler.
[MAKE] = re.findall(r"^\t-@\$\(BIN\)/python -c '(.*?)'", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def start(folder: Path, code: str = REPORT, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process that caches its compiled extensions in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Wait for a process; return what it printed and the lines of its warnings."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip(), err.splitlines()


def write_script(path: Path, text: str) -> str:
    """Write an executable shell script and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def compiler() -> str:
    try:
        return build._compiler()[0]
    except build.BuildError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_importing_compiles_nothing(tmp_path: Path) -> None:
    assert finish(start(tmp_path, "import kernels, kernels.native")) == ("", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CXX": "no-such-compiler"}, "the compiler 'no-such-compiler' (environment variable CXX) was not found"),
        ({"CXX": "", "PATH": "/nowhere"}, "no C++ compiler was found (looked for c++, g++, clang++)"),
        ({"CXX": "false"}, "false failed: ?"),
    ],
)
def test_without_a_compiler_one_warning_gives_the_reason(
    tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    printed, warnings = finish(start(tmp_path, f"{MAKE}; {REPORT}", **environment))
    assert printed == f"False {reason}"
    assert warnings == [f"Token operations run in plain PyTorch, which is slower: {reason}."]


@pytest.mark.slow
def test_the_first_compiler_error_is_quoted(tmp_path: Path) -> None:
    failing = write_script(
        tmp_path / "cxx", "echo 'In file a.cpp:' >&2; echo 'a.cpp:1: error: no such header' >&2; exit 1"
    )
    printed, _ = finish(start(tmp_path / "cache", CXX=failing))
    assert printed == f"False {failing} failed: a.cpp:1: error: no such header"
    assert [path.name for path in tmp_path.glob("cache/*/*")] == ["lock"]  # no unfinished library is left


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    printed, warnings = finish(start(tmp_path / "file"))
    assert printed.startswith(f"False {tmp_path / 'file'}")
    assert "cannot be used" in printed and len(warnings) == 1


@pytest.mark.slow
def test_the_environment_variable_disables_the_library(tmp_path: Path) -> None:
    expected = "False the environment variable TCFORMER_NATIVE is 0"
    assert finish(start(tmp_path, TCFORMER_NATIVE="0")) == (expected, [])
    assert not list(tmp_path.iterdir())


def test_calling_an_unavailable_function_raises(tmp_path: Path) -> None:
    code = (
        "import torch; from kernels import native\n"
        "try: native.dpc_knn(torch.zeros(1, 4, 2), 1, 5)\n"
        "except RuntimeError as error: print(error)"
    )
    printed, _ = finish(start(tmp_path, code, TCFORMER_NATIVE="0"))
    assert printed == "the C++ token operations are not available: the environment variable TCFORMER_NATIVE is 0"


@pytest.mark.slow
def test_processes_that_start_at_once_compile_the_library_once(tmp_path: Path, compiler: str) -> None:
    counting = write_script(tmp_path / "cxx", f'echo >> "{tmp_path / "calls"}"; exec "{compiler}" "$@"')
    for process in [start(tmp_path / "cache", CXX=counting) for _ in range(2)]:
        assert finish(process) == ("True", [])
    assert finish(start(tmp_path / "cache", CXX=counting)) == ("True", [])
    assert (tmp_path / "calls").read_text() == "\n"  # one line per compilation: one for all three processes

    # A library that was damaged later is compiled again.
    (library,) = tmp_path.glob("cache/*/native.so")
    library.unlink()
    library.write_bytes(b"damaged")
    assert finish(start(tmp_path / "cache", CXX=counting)) == ("True", [])
    assert (tmp_path / "calls").read_text() == "\n\n"


@pytest.mark.slow
def test_a_killed_build_does_not_block_the_next(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = write_script(tmp_path / "slow", f'echo $$ > "{pid}.new"; mv "{pid}.new" "{pid}"; exec sleep 300')
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


def test_each_kind_of_cpu_has_its_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    own = build._fingerprint()
    assert own == build._fingerprint()
    monkeypatch.setattr(build, "_cpu", lambda: ["flags: sse2"])
    assert build._fingerprint() != own


def test_the_library_for_all_cpus_with_avx2_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    own = build._fingerprint()
    monkeypatch.setenv("TCFORMER_INSTRUCTION_SETS", "avx2")
    portable = build._fingerprint()
    assert portable != own
    monkeypatch.setattr(build, "_cpu", lambda: ["flags: sse2"])
    assert build._fingerprint() == portable
    monkeypatch.setenv("TCFORMER_INSTRUCTION_SETS", "native")
    assert build._fingerprint() not in (own, portable)


@pytest.mark.slow
def test_unknown_instruction_sets_are_the_reason(tmp_path: Path) -> None:
    printed, warnings = finish(start(tmp_path, TCFORMER_INSTRUCTION_SETS="avx3"))
    reason = "the environment variable TCFORMER_INSTRUCTION_SETS is 'avx3': expected native or avx2"
    assert printed == f"False {reason}" and len(warnings) == 1


def test_the_reason_is_empty_if_the_library_is_available() -> None:
    assert native.available() == (native.reason() == "")

"""Compile the C++ sources, once per machine.

The library is compiled for exactly this CPU. Its folder is therefore named by a hash of everything that determines it:
sources, compiler flags, PyTorch and CPU. With TCFORMER_INSTRUCTION_SETS=avx2 it is compiled for all x86-64 CPUs with
AVX2 and without fused multiply-adds, so that every CPU and every compiler gives the same results. The folder is in the
cache of PyTorch's own extensions: $TORCH_EXTENSIONS_DIR, else torch_extensions in the user's cache folder.

The compiler is called directly instead of through `torch.utils.cpp_extension`. The sources include only one C header of
PyTorch, so that module would not help, and a killed build there leaves a lock behind.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

_SOURCES = Path(__file__).parent / "src"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_CPU_FLAGS = {
    "native": (
        "-ffp-contract=fast",
        "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native",
    ),
    "avx2": ("-ffp-contract=off", "-march=x86-64", "-mavx2"),
}
#: Environment variable: the CPU that the library is compiled for, "native" (default) or "avx2".
INSTRUCTION_SETS = "TCFORMER_INSTRUCTION_SETS"
_TIMEOUT_SECONDS = 300


class BuildError(Exception):
    """The library cannot be compiled; the message is the reason, in one clause."""


def target() -> str:
    """What the library is compiled for: "native" or "avx2".

    Raises:
        BuildError: the environment variable has another value.
    """
    chosen = os.environ.get(INSTRUCTION_SETS) or "native"
    if chosen not in _CPU_FLAGS:
        expected = " or ".join(_CPU_FLAGS)
        raise BuildError(f"the environment variable {INSTRUCTION_SETS} is '{chosen}': expected {expected}")
    return chosen


def build_library(replace: bool = False) -> Path:
    """Path of the library for this CPU, which is compiled unless it is in the cache.

    If several processes call this function at once, one compiles and the others wait. If that one dies, the operating
    system releases its lock, and the next one compiles.

    Args:
        replace: compile even if the library is in the cache.

    Raises:
        BuildError: there is no compiler, it fails, or the folder cannot be written.
    """
    library = _cache_root() / f"tcformer_native_{_fingerprint()}" / "native.so"
    if library.exists() and not replace:
        return library
    if os.name != "posix":
        raise BuildError("this operating system is not supported")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(library.parent / "lock"):
            if replace or not library.exists():
                _compile(library)
    except OSError as error:
        raise BuildError(f"{library.parent} cannot be used ({error})") from error
    return library


def _cache_root() -> Path:
    """Folder of PyTorch's compiled extensions."""
    if folder := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"


def _fingerprint() -> str:
    chosen = target()
    parts = [torch.__version__, *_FLAGS, *_CPU_FLAGS[chosen], platform.machine(), platform.system()]
    parts += _cpu() if chosen == "native" else []
    parts += [f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sorted(_SOURCES.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _cpu() -> list[str]:
    """The CPU's model and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [platform.processor()]
    wanted = ("model name", "flags", "CPU part", "Features")  # the last two are the names on ARM
    return sorted({line for line in lines if line.startswith(wanted)})


def _compile(library: Path) -> None:
    package = Path(torch.__file__).parent
    # Compiled into a temporary file, which is then renamed, so no process ever sees an unfinished library.
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    command = [
        *_compiler(),
        *_FLAGS,
        *_CPU_FLAGS[target()],
        *(["-Wl,-undefined,dynamic_lookup"] if platform.system() == "Darwin" else []),
        f"-I{package / 'include'}",
        *(str(path) for path in sorted(_SOURCES.glob("*.cpp"))),
        f"-L{package / 'lib'}",
        "-ltorch_cpu",
        "-o",
        unfinished,
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
        if run.returncode != 0:
            lines = [line for line in run.stderr.splitlines() if "error" in line] or run.stderr.splitlines() or ["?"]
            raise BuildError(f"{command[0]} failed: {lines[0].strip()}")
        os.replace(unfinished, library)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took longer than {_TIMEOUT_SECONDS} seconds") from error
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _compiler() -> list[str]:
    if chosen := shlex.split(os.environ.get("CXX", "")):
        if shutil.which(chosen[0]):
            return chosen
        raise BuildError(f"the compiler '{chosen[0]}' (environment variable CXX) was not found")
    for name in _COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise BuildError(f"no C++ compiler was found (looked for {', '.join(_COMPILERS)})")

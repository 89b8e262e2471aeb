"""What the benchmarks share: time and memory of functions, and files of results."""

from __future__ import annotations

import csv
import ctypes
import re
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from statistics import median

import torch

from kernels import native

RESULTS = Path(__file__).parent / "results"
_MIB = 2**20

Function = Callable[[], object]
#: One row of a table: a text or a number for each column.
Row = dict[str, object]


def alternate(functions: Mapping[str, Function], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Time functions in alternation (A B A B ...), after one call of each that is not timed.

    Args:
        functions: the functions by name.
        repeats: the number of timed calls of each.
        device: the device on which they work.

    Returns:
        Seconds of each call of each function, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios of neighbouring calls; other load on the machine affects it little."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def peak_mib(function: Function, device: torch.device) -> float:
    """Peak memory of a call beyond the memory in use before it, MiB; on CPUs the resident memory (Linux only)."""
    function()  # so that memory of the first call only is not counted
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        _wait(device)
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    ctypes.CDLL(None).malloc_trim(0)  # so that the call cannot use memory that was freed before
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0) / 1024


def device_name(device: torch.device) -> str:
    """Model of the device, in characters that are valid in file names.

    For a CPU also the number of threads, and "avx2" where the kernels are compiled for all CPUs with AVX2.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        chosen = "" if native.target() == "native" else native.target()
        name = f"{found[1].strip() if found else 'cpu'} {chosen} {torch.get_num_threads()} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def report(title: str, name: str, rows: list[Row], device: torch.device) -> None:
    """Print a table and write it to `results/<name>-<device>.csv`, with device, date and torch version in each row."""
    print(f"\n{title} ({device_name(device)})")
    texts = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    about: Row = {"device": device_name(device), "date": date.today().isoformat(), "torch": torch.__version__}
    with (RESULTS / f"{name}-{device_name(device)}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in (row | about).items()} for row in rows)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(field: str) -> int:
    """A field of this process's status, kB."""
    found = re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])

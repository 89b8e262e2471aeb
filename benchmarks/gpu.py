"""Are the Triton kernels correct and fast on this GPU, and how near are they to the limits of the device?

    python -m benchmarks.gpu --help

It measures the limits of the device, runs the tests of the kernels, and then times clustering with each of its kernel
launches, each operation, and the whole network. The most informative steps come first. Steps for which no time is left
are listed and not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import plain
from benchmarks.measure import Row, peak_mib, report
from kernels import dpc_knn

ROOT = Path(__file__).resolve().parents[1]
BATCHES = [1, 32, 64, 128]
IMAGES = [(224, 224), (256, 192), (384, 288)]
WIDTHS = [128, 320, 512]  # channels at the three places where the network clusters
# The plain formulation stores about six float32 arrays (B, N, N).
PLAIN_BYTES_PER_PAIR = 24
DEVICE = torch.device("cuda")


def main() -> None:
    """Test, measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="no step starts after this time")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="batch sizes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu measures a CUDA GPU, but PyTorch finds none here: run it on a machine that has one.")
    deadline = time.monotonic() + options.minutes * 60
    torch.manual_seed(0)
    bandwidth, throughput = device_limits()
    run_module("pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/test_triton.py", deadline=deadline)
    rows = [clustering(*case, bandwidth, throughput) for case in clustering_cases(options.batches, deadline)]
    report("Clustering (DPC-KNN), float32", "gpu-clustering", rows, DEVICE)
    launches = [
        row for shape in zip(tokens_of(*IMAGES[0]), WIDTHS) for row in launch_times(max(options.batches), *shape)
    ]
    report(f"Launches of clustering, batch {max(options.batches)}", "gpu-launches", launches, DEVICE)
    for batch in (max(options.batches), min(options.batches)):
        run_module("benchmarks.ops", "--device", "cuda", "--batch", str(batch), "--compile", deadline=deadline)
    for flags in ([], ["--compile"]):
        arguments = ["--device", "cuda", "--batch", str(sorted(options.batches)[len(options.batches) // 2])]
        run_module("benchmarks.network", *arguments, *flags, deadline=deadline)


def device_limits() -> tuple[float, float]:
    """Measure bytes per second of a copy (read and written) and operations per second of a TF32 matrix product."""
    source = torch.randn(2**28, device=DEVICE)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds_of(lambda: target.copy_(source))
    side = 8192
    rates = {}
    for name, dtype in (("tf32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(2, side, side, device=DEVICE, dtype=dtype).unbind()
        torch.backends.cuda.matmul.allow_tf32 = True
        rates[name] = 2 * side**3 / seconds_of(partial(torch.matmul, a, b))
        torch.backends.cuda.matmul.allow_tf32 = False
    row: Row = {"copy GB/s": bandwidth / 1e9} | {f"{name} TFLOP/s": rate / 1e12 for name, rate in rates.items()}
    report("Ceilings", "gpu-ceilings", [row], DEVICE)
    return bandwidth, rates["tf32"]


def clustering_cases(batches: list[int], deadline: float) -> Iterator[tuple[int, tuple[int, int], int, int]]:
    """Batch size, image size, tokens and channels of each case, the most usual first, until the deadline."""
    for image in IMAGES:
        for tokens, channels in zip(tokens_of(*image), WIDTHS):
            for batch in sorted(batches, reverse=True):
                if time.monotonic() < deadline:
                    yield batch, image, tokens, channels
                else:
                    print(f"skipped for lack of time: batch {batch}, {image[0]}x{image[1]}, {tokens} tokens")


def tokens_of(height: int, width: int) -> list[int]:
    """Numbers of tokens at the three places where the network clusters, for an image size."""
    tokens = ceil(height / 4) * ceil(width / 4)
    return [tokens, ceil(tokens / 4), ceil(ceil(tokens / 4) / 4)]


def clustering(
    batch: int, image: tuple[int, int], tokens: int, channels: int, bandwidth: float, throughput: float
) -> Row:
    """Time both modes of clustering, the plain formulation, and the least time that an exact method needs ("floor")."""
    x = torch.randn(batch, tokens, channels, device=DEVICE)
    m = ceil(tokens / 4)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: dpc_knn(x, m, strict=False),
        "strict": lambda: dpc_knn(x, m, strict=True),
    }
    if PLAIN_BYTES_PER_PAIR * batch * tokens**2 < 0.8 * torch.cuda.mem_get_info()[0]:
        calls["plain"] = lambda: plain.dpc_knn(x, m)
        compiled = torch.compile(plain.dpc_knn, dynamic=True)
        calls["plain compiled"] = lambda: compiled(x, m)
    ms = {name: seconds_of(call) * 1e3 for name, call in calls.items()}
    # Each pair of tokens is multiplied once, each feature is read once.
    floor = max(2 * batch * tokens**2 * channels / throughput, x.nbytes / bandwidth) * 1e3
    row: Row = {"image": f"{image[0]}x{image[1]}", "batch": batch, "shape": f"{tokens}x{channels}"}
    for name in ("ours", "strict", "plain", "plain compiled"):
        row[f"{name} ms"] = ms.get(name, "too large")
    row["plain / ours"] = ms["plain"] / ms["ours"] if "plain" in ms else "too large"
    row |= {"ours MiB": peak_mib(calls["ours"], DEVICE)}
    row |= {"plain MiB": peak_mib(calls["plain"], DEVICE) if "plain" in calls else "too large"}
    return row | {"floor ms": floor, "floor / ours": floor / ms["ours"]}


def launch_times(batch: int, tokens: int, channels: int, repeats: int = 10) -> list[Row]:
    """Time each kernel launch of a clustering; one row per launch, in their order."""
    x = torch.randn(batch, tokens, channels, device=DEVICE)
    call = partial(dpc_knn, x, ceil(tokens / 4))
    call()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    events = sorted(
        (e for e in record.events() if e.device_type.name == "CUDA" and e.name.endswith("_kernel")),
        key=lambda event: event.time_range.start,
    )
    count = len(events) // repeats
    ms = [sum(e.device_time_total for e in events[i::count]) / repeats / 1e3 for i in range(count)]
    return [
        {
            "shape": f"{tokens}x{channels}",
            "launch": i + 1,
            "kernel": events[i].name,
            "ms": ms[i],
            "share": ms[i] / sum(ms),
        }
        for i in range(count)
    ]


def seconds_of(call: Callable[[], object]) -> float:
    """Median time of a call on the GPU, seconds."""
    from triton.testing import do_bench

    return do_bench(call, warmup=10, rep=50, return_mode="median") / 1e3


def run_module(module: str, *arguments: str, deadline: float) -> None:
    """Run a module in a process of its own; after the deadline it is skipped with a message.

    Raises:
        SystemExit: if the module fails, because incorrect kernels are not timed.
    """
    command = " ".join([module, *arguments])
    left = deadline - time.monotonic()
    if left <= 0:
        print(f"skipped for lack of time: {command}")
        return
    try:
        done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, timeout=left)
    except subprocess.TimeoutExpired:
        print(f"stopped for lack of time: {command}")
        return
    if done.returncode:
        sys.exit(f"benchmarks.gpu: stopped, because this command failed: python -m {command}")


if __name__ == "__main__":
    main()

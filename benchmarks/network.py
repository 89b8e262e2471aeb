"""How fast is the whole network, and how much memory does it need, compared with similar networks?

    python -m benchmarks.network --help

It is compared with the same network with 2x2 pooling instead of clustering, with clustering within parts of the image,
and with timm's pvt_v2_b2, which has the same stages on fixed grids. On CPUs everything is timed again in memory that
the process keeps, as our stages and `tcformer predict` keep it.

On a CPU with AVX-512, this is how all of it does without:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 TCFORMER_INSTRUCTION_SETS=avx2 python -m benchmarks.network
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import tcformer
from benchmarks.measure import Row, alternate, peak_mib, ratio, report
from tcformer.memory import keep_freed_memory

VARIANT = "tcformer"
FIXED_GRID = "pvt_v2_b2"

Step = Callable[[nn.Module, Tensor], object]


def main() -> None:
    """Time forward pass and training step, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels; a multiple of 32")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="compile all networks")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    images = smooth_images(options.batch, options.size).to(device)
    models = {name: model.to(device) for name, model in build().items()}
    check_logits(models[VARIANT], images)
    called = {name: torch.compile(model) if options.compile else model for name, model in models.items()}

    mode = "compiled" if options.compile else "eager"
    rows = measure(mode, called, images, options.repeats)
    if device.type == "cpu":
        keep_freed_memory()
        rows += measure(f"{mode}, memory kept", called, images, options.repeats)
    title = f"Networks, {options.batch} x {options.size} x {options.size}, float32"
    report(title, f"network-{mode}-b{options.batch}-{options.size}", rows, device)
    shares: list[Row] = []
    for step, run in STEPS:
        for name, share in operation_shares(partial(run, models[VARIANT], images), device):
            shares.append({"step": step, "operation": name, "share": share})
    title = f"Share of this package's operations in {VARIANT}"
    report(title, f"shares-b{options.batch}-{options.size}", shares, device)


def measure(mode: str, models: Mapping[str, nn.Module], images: Tensor, repeats: int) -> list[Row]:
    """Time each step of each network."""
    rows: list[Row] = []
    for step, run in STEPS:
        calls = {name: _with_its_pooling(name, run, model, images) for name, model in models.items()}
        seconds = alternate(calls, repeats, images.device)
        for name, call in calls.items():
            row: Row = {"step": step, "mode": mode, "network": name}
            row["ms"] = median(seconds[name]) * 1e3
            row[f"/ {FIXED_GRID}"] = ratio(seconds[name], seconds[FIXED_GRID])
            rows.append(row | {"peak MiB": peak_mib(call, images.device)})
    return rows


def build() -> dict[str, nn.Module]:
    """The networks by name."""
    import timm

    return {
        FIXED_GRID: timm.create_model(FIXED_GRID),
        VARIANT: tcformer.create_model(VARIANT, "imagenet"),
        "local clustering": tcformer.create_model(VARIANT, "imagenet", token_reduction="local_ctm"),
        "2x2 pooling": tcformer.create_model(VARIANT, "imagenet"),
    }


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """Logits, without gradients."""
    model.eval()
    with torch.inference_mode():
        return model(images)


def train(model: nn.Module, images: Tensor) -> None:
    """Forward and backward pass."""
    model.train()
    model(images).square().sum().backward()
    model.zero_grad()


def check_logits(model: nn.Module, images: Tensor) -> None:
    """Check, before anything is timed, that the network's logits agree with those of the reference operations.

    They are compared for two images by their correlation: where distances nearly tie in float32, clusters may differ.

    Raises:
        AssertionError: if they do not agree.
    """
    fast = forward(model, images[:2])
    with patch.dict("os.environ", TCFORMER_KERNELS="reference"):
        expected = forward(model, images[:2])
    agreement = torch.corrcoef(torch.stack([fast.flatten(), expected.flatten()]))[0, 1].item()
    assert agreement > 0.999, f"the logits' correlation with the reference is {agreement}; expected above 0.999"


def operation_shares(call: Callable[[], object], device: torch.device) -> list[tuple[str, float]]:
    """Share of each operator of `kernels` in the time of one call, the largest first."""
    call()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as record:
        call()
    events = record.key_averages()
    total = sum(e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in events)
    ours = [e for e in events if e.key.startswith("tcformer::")]
    shares = [(e.key, (e.device_time_total if on_gpu else e.cpu_time_total) / total) for e in ours]
    return sorted(shares, key=lambda pair: -pair[1])


def pool(x: Tensor, num_clusters: int, **_: object) -> tuple[Tensor, Tensor]:
    """Replaces `dpc_knn` for tokens that are a square grid, row by row: clusters are 2x2 neighbours."""
    side, half = round(x.shape[1] ** 0.5), round(num_clusters**0.5)
    place = torch.arange(side, device=x.device) // 2
    assign = (place[:, None] * half + place).flatten().expand(len(x), -1)
    first = torch.arange(half, device=x.device) * 2
    return (first[:, None] * side + first).flatten().expand(len(x), -1), assign


@contextmanager
def pooling() -> Iterator[None]:
    """A context in which networks pool instead of clustering."""
    with patch("tcformer.models.ctm.dpc_knn", pool):
        yield


def smooth_images(batch: int, size: int) -> Tensor:
    """Random images (B, 3, size, size): smooth, with noise."""
    return F.interpolate(torch.randn(batch, 3, 6, 6), (size, size), mode="bicubic") + 0.1 * torch.randn(
        batch, 3, size, size
    )


def _with_its_pooling(name: str, run: Step, model: nn.Module, images: Tensor) -> Callable[[], object]:
    """A call of a network; that of the network with 2x2 pooling is made within `pooling`."""

    def call() -> object:
        if name != "2x2 pooling":
            return run(model, images)
        with pooling():
            return run(model, images)

    return call


STEPS: tuple[tuple[str, Step], ...] = (("forward", forward), ("training step", train))

if __name__ == "__main__":
    main()

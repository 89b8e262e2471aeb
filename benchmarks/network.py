"""The whole network beside others of its size: `python -m benchmarks.network --help`.

Beside it: the same network with 2x2 pooling in place of clustering, the same with clustering in parts of the image,
and timm's pvt_v2_b2, which has the same stages on fixed grids.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import tcformer
from benchmarks.measure import alternate, peak_mib, ratio, report

VARIANT = "tcformer"
TWIN = "pvt_v2_b2"


def main() -> None:
    """Time forward pass and training step, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile all networks")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    images = smooth_images(options.batch, options.size).to(device)
    models = {name: model.to(device) for name, model in build().items()}
    check(models, images)
    called = {name: torch.compile(model) if options.compile else model for name, model in models.items()}

    mode = "compiled" if options.compile else "eager"
    rows = []
    for step, run in STEPS:
        calls = {name: _pooling_or_not(name, run, model, images) for name, model in called.items()}
        seconds = alternate(calls, options.repeats, device)
        for name, call in calls.items():
            row: dict[str, Any] = {"step": step, "mode": mode, "network": name}
            row["ms"] = median(seconds[name]) * 1e3
            row[f"/ {TWIN}"] = ratio(seconds[name], seconds[TWIN])
            rows.append(row | {"peak MiB": peak_mib(call, device)})
    title = f"Networks, {options.batch} x {options.size} x {options.size}, float32"
    report(title, f"network-{mode}-b{options.batch}-{options.size}", rows, device)
    shares = []
    for step, run in STEPS:
        for name, share in operation_shares(partial(run, models[VARIANT], images), device):
            shares.append({"step": step, "operation": name, "share": share})
    title = f"Share of this package's operations in {VARIANT}"
    report(title, f"shares-b{options.batch}-{options.size}", shares, device)


def build() -> dict[str, nn.Module]:
    """The networks by name."""
    import timm

    return {
        TWIN: timm.create_model(TWIN),
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


def check(models: dict[str, nn.Module], images: Tensor) -> None:
    """Values first: the operations against their dense specification, in the network.

    On two images: their clusters, on which all else rests, may differ where float32 nearly ties.
    """
    model, some = models[VARIANT], images[:2]
    fast = forward(model, some)
    with patch.dict("os.environ", TCFORMER_KERNELS="reference"):
        expected = forward(model, some)
    agreement = torch.corrcoef(torch.stack([fast.flatten(), expected.flatten()]))[0, 1].item()
    assert agreement > 0.999, f"the network's logits correlate with those of the specification by {agreement} alone"


def operation_shares(call: Callable[[], object], device: torch.device) -> list[tuple[str, float]]:
    """Share of the time of one call that goes to each operator of `kernels`, largest first."""
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


def pool(x: Tensor, num_clusters: int, **_: Any) -> tuple[Tensor, Tensor]:
    """In place of `dpc_knn`, for tokens that are a square grid row by row: clusters of 2x2 neighbours."""
    side, half = round(x.shape[1] ** 0.5), round(num_clusters**0.5)
    place = torch.arange(side, device=x.device) // 2
    assign = (place[:, None] * half + place).flatten().expand(len(x), -1)
    first = torch.arange(half, device=x.device) * 2
    return (first[:, None] * side + first).flatten().expand(len(x), -1), assign


@contextmanager
def pooling() -> Iterator[None]:
    """Within, networks pool instead of clustering."""
    with patch("tcformer.models.ctm.dpc_knn", pool):
        yield


def smooth_images(batch: int, size: int) -> Tensor:
    """(B, 3, size, size) normal images: smooth with noise."""
    return F.interpolate(torch.randn(batch, 3, 6, 6), (size, size), mode="bicubic") + 0.1 * torch.randn(
        batch, 3, size, size
    )


def _pooling_or_not(name: str, run: Callable[..., object], model: Any, images: Tensor) -> Callable[[], object]:
    def call() -> object:
        if name != "2x2 pooling":
            return run(model, images)
        with pooling():
            return run(model, images)

    return call


STEPS: tuple[tuple[str, Callable[..., object]], ...] = (("forward", forward), ("training step", train))

if __name__ == "__main__":
    main()

"""How fast is each token operation, and how much memory does it need, compared with its plain formulation?

    python -m benchmarks.ops --help

The results of both are compared first: incorrect operations are not timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain
from benchmarks.measure import Row, alternate, peak_mib, ratio, report
from kernels import TokenPlan, attention, dpc_knn, map2token, merge_tokens, token2map, token_conv

# Shapes in the base network at 224 x 224 pixels.
CLUSTERING = [(3136, 128), (784, 320), (196, 512)]  # tokens, channels
CONVOLUTIONS = [(784, 28, 1024), (196, 14, 1280), (49, 7, 2048)]  # tokens, side of the map, hidden channels
ATTENTION = [(2, 784, 49), (5, 196, 49), (8, 49, 196)]  # heads, queries, keys; each head has 64 channels
GRID = 56  # side of the token grid
MEMORY_TOKENS = [1024, 4096, 16384, 65536]


@dataclass(frozen=True)
class Case:
    """One operation on one shape."""

    name: str
    shape: str
    plain: Callable[..., Any]
    """The plain formulation, a function of `tensors`."""
    ours: Callable[..., Any]
    """The operation of `kernels`, a function of `tensors`."""
    tensors: tuple[Tensor, ...]
    gradients: int = 0
    """Number of tensors for which gradients are computed; 0: only the forward pass is timed."""


def main() -> None:
    """Compare, time and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each operation")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="time the compiled plain formulation too")
    parser.add_argument(
        "--memory-tokens",
        type=int,
        nargs="*",
        default=MEMORY_TOKENS,
        help="numbers of tokens for which the memory of clustering is measured",
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    rows = [measure(case, options.repeats, options.compile, device) for case in cases(options.batch, device)]
    report(f"Operations, batch {options.batch}, float32", f"ops-b{options.batch}", rows, device)
    if options.memory_tokens:
        rows = [clustering_memory(tokens, device) for tokens in options.memory_tokens]
        report("Memory of clustering, 1 image, 64 channels", "clustering-memory", rows, device)


def cases(batch: int, device: torch.device) -> list[Case]:
    """All operations with their shapes in the base network."""
    found = []
    for tokens, channels in CLUSTERING:
        x = smooth_tokens(batch, tokens, channels, device)
        m = ceil(tokens / 4)
        found.append(Case("dpc_knn", f"{tokens}x{channels}", lambda x, m=m: plain.dpc_knn(x, m),
                          lambda x, m=m: dpc_knn(x, m), (x,)))  # fmt: skip
        log_weight, assign = torch.randn(batch, tokens, 1, device=device), dpc_knn(x, m)[1]
        found.append(Case("merge_tokens", f"{tokens}x{channels}",
                          lambda x, w, a=assign, m=m: plain.merge_tokens(x, w, a, m),
                          lambda x, w, a=assign, m=m: merge_tokens(x, w, a, m)[0], (x, log_weight), 2))  # fmt: skip
    for tokens, side, channels in CONVOLUTIONS:
        plan = clustered_plan(batch, tokens, side, device)
        x = torch.randn(batch, tokens, channels, device=device)
        shape = f"{tokens}x{channels}"

        def plain_maps(x: Tensor, plan: TokenPlan = plan) -> Tensor:
            m = plain.token2map(x, plan.token_of_cell, plan.pixel_of_cell, plan.map_size)
            return plain.map2token(m, plan.token_of_cell, plan.pixel_of_cell, plan.num_tokens)

        def plain_conv(x: Tensor, weight: Tensor, bias: Tensor, skip: Tensor, plan: TokenPlan = plan) -> Tensor:
            return plain.token_conv(x, plan.token_of_cell, plan.pixel_of_cell, plan.map_size, weight, bias, skip)

        found.append(Case("token2map + map2token", shape, plain_maps,
                          lambda x, p=plan: map2token(token2map(x, p), p), (x,), 1))  # fmt: skip
        weight = torch.randn(channels, 1, 3, 3, device=device) / 3
        bias, skip = torch.randn(2, channels, device=device).unbind()
        found.append(Case("token_conv + GELU", shape, plain_conv,
                          lambda x, w, b, s, p=plan: token_conv(x, p, w, b, s, gelu=True),
                          (x, weight, bias, skip), 4))  # fmt: skip
    for heads, queries, keys in ATTENTION:
        q = torch.randn(batch, heads, queries, 64, device=device)
        k, v = torch.randn(2, batch, heads, keys, 64, device=device).unbind()
        bias = torch.randn(batch, keys, device=device)
        found.append(Case("attention, key bias", f"{heads} x {queries} x {keys}", plain.attention, attention,
                          (q, k, v, bias), 4))  # fmt: skip
    return found


def measure(case: Case, repeats: int, compiled: bool, device: torch.device) -> Row:
    """Measure the time and the peak memory of a call, with its backward pass if the case has gradients."""
    functions = {"plain": case.plain, "ours": case.ours}
    if compiled:
        functions["compiled"] = torch.compile(case.plain)
    calls = {name: _call(function, case) for name, function in functions.items()}
    _compare(case, calls["ours"](), calls["plain"]())
    seconds = alternate(calls, repeats, device)
    memory = {name: peak_mib(call, device) for name, call in calls.items()}
    row: Row = {"operation": case.name, "shape": case.shape, "gradient": "yes" if case.gradients else "no"}
    row |= {f"{name} ms": sorted(times)[len(times) // 2] * 1e3 for name, times in seconds.items()}
    row |= {f"{name} / ours": ratio(times, seconds["ours"]) for name, times in seconds.items() if name != "ours"}
    return row | {f"{name} MiB": mib for name, mib in memory.items()}


def clustering_memory(tokens: int, device: torch.device) -> Row:
    """Measure the peak memory of clustering a number of tokens; the plain one only up to 4096, some GiB."""
    x = smooth_tokens(1, tokens, 64, device)
    ours = peak_mib(lambda: dpc_knn(x, ceil(tokens / 4)), device)
    of_plain = peak_mib(lambda: plain.dpc_knn(x, ceil(tokens / 4)), device) if tokens <= 4096 else None
    return {
        "tokens": tokens,
        "ours MiB": ours,
        "ours bytes a token": ours * 2**20 / tokens,
        "plain MiB": "not run" if of_plain is None else of_plain,
    }


def smooth_tokens(batch: int, tokens: int, channels: int, device: torch.device) -> Tensor:
    """Random tokens (B, N, C): a smooth field with noise, because features of neighbouring image parts are similar."""
    side = round(tokens**0.5)
    field = F.interpolate(torch.randn(batch, channels, 6, 6), (side, side), mode="bicubic")
    return (field + 0.3 * torch.randn_like(field)).flatten(2).mT.contiguous().to(device)


def clustered_plan(batch: int, tokens: int, side: int, device: torch.device) -> TokenPlan:
    """The plan of the stage with that number of tokens, which are merged from the grid as in the network."""
    x = smooth_tokens(batch, GRID * GRID, 16, device)
    token_of_cell = torch.arange(GRID * GRID, device=device).expand(batch, -1)
    while x.shape[1] > tokens:
        m = x.shape[1] // 4
        assign = dpc_knn(x, m)[1]
        x = merge_tokens(x, torch.zeros_like(x[:, :, :1]), assign, m)[0]
        token_of_cell = assign.gather(1, token_of_cell)
    return TokenPlan.build(token_of_cell, tokens, (GRID, GRID), (side, side))


def _call(function: Callable[..., Any], case: Case) -> Callable[[], Any]:
    """A call of a function with the case's tensors: it returns the result and, if the case has any, the gradients."""
    if not case.gradients:
        return lambda: function(*case.tensors)
    leaves = [t.detach().clone().requires_grad_() for t in case.tensors]
    cotangent: list[Tensor] = []

    def run() -> tuple[Tensor, ...]:
        y = function(*leaves)
        if not cotangent:
            g = torch.Generator().manual_seed(0)
            cotangent.append(torch.randn(y.shape, generator=g).to(y.device))
        return y.detach(), *torch.autograd.grad(y, leaves, cotangent[0])

    return run


def _compare(case: Case, ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Raise AssertionError if the two results differ by more than rounding."""
    if case.name == "dpc_knn":  # the plain one rounds differently, and may choose other centres at near ties
        shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(ours[0], expected[0], strict=True)]
        assert sum(shared) >= 0.99 * ours[0].numel(), f"{case.shape}: {sum(shared)} of {ours[0].numel()} centres agree"
        return
    for a, b in zip(ours, expected, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * scale, msg=lambda m: f"{case.name} {case.shape}: {m}")


if __name__ == "__main__":
    main()

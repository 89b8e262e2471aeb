"""Every Triton kernel is compiled ahead of time for the GPUs that have their own block sizes, which needs no GPU.

The interpreter accepts kernels that do not compile. Therefore the functions that launch kernels are called with the
launch itself replaced: each launch is recorded with its arguments, then compiled as Triton would compile it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

MODULES = [
    import_module(name)
    for name in (
        "kernels.dpc_knn.triton_backend",
        "kernels.segments.triton_backend",
        "kernels.token_conv.triton_backend",
    )
]
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


class Build(NamedTuple):
    """Everything except the architecture that determines a kernel's machine code."""

    kernel: JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, int], ...]


def record(kernel: JITFunction, arguments: tuple[Any, ...], options: dict[str, int]) -> Build:
    """Types, constants and known alignments of a launch's arguments, as Triton derives them."""
    signature, constants, aligned = [], [], []
    for place, (parameter, value) in enumerate(zip(kernel.params, arguments, strict=True)):
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature.append((parameter.name, "constexpr"))
            constants.append((parameter.name, value))
            continue
        tensor = isinstance(value, torch.Tensor)
        signature.append((parameter.name, POINTERS[value.dtype] if tensor else "i32"))
        if tensor or value % 16 == 0:
            aligned.append(place)
    return Build(kernel, tuple(signature), tuple(constants), tuple(aligned), tuple(options.items()))


def launch_all(dpc_knn: ModuleType, segments: ModuleType, token_conv: ModuleType) -> None:
    """Call the functions that launch kernels, at the network's sizes; the tensors' values do not matter."""
    x = torch.zeros(2, 196, 320)
    for strict in (False, True):
        dpc_knn.dpc_knn(x, num_clusters=49, k=5, strict=strict)
        many, mask = torch.zeros(2, 3136, 127), torch.ones(2, 3136, dtype=torch.bool)
        dpc_knn.dpc_knn(many, num_clusters=784, k=5, mask=mask, strict=strict)
    index, weight = torch.zeros(50, dtype=torch.int64), torch.zeros(50)
    for rows in (torch.zeros(7, 128), torch.zeros(7, 125, dtype=torch.bfloat16), torch.zeros(7, 3, dtype=torch.double)):
        segments.segment_sum(rows, index, index)
        segments.segment_sum(rows, index, index, weight)
        segments.row_dots(rows, index, rows, index)
    segments.segment_total(weight, index)
    for dtype, channels in ((torch.float32, 1024), (torch.bfloat16, 1024), (torch.bfloat16, 33)):
        x = torch.zeros(2, 784, channels, dtype=dtype)
        weight, bias = torch.zeros(channels, 1, 3, 3, dtype=dtype), torch.zeros(channels, dtype=dtype)
        for gelu in (True, False):
            cells = [index] * 6
            token_conv.token_conv(x, weight, bias, bias, *cells, map_size=(28, 28), gelu=gelu)
            token_conv.token_conv_backward(x, x, weight, bias, bias, *cells, map_size=(28, 28), gelu=gelu)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[Build]]]:
    """A function that returns the different builds that the launches on an architecture need."""

    def launches_on(architecture: str) -> list[Build]:
        builds: dict[Build, None] = {}

        def run(self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: int) -> None:
            builds[record(self, arguments, options)] = None

        with monkeypatch.context() as patch:
            patch.setattr(JITFunction, "run", run)
            for module in MODULES:
                if hasattr(module, "architecture"):
                    patch.setattr(module, "architecture", lambda device: architecture)
            launch_all(*MODULES)
        return list(builds)

    yield launches_on


def test_every_kernel_is_launched(launches: Callable[[str], list[Build]]) -> None:
    kernels = {
        value for module in MODULES for name, value in vars(module).items() if name.endswith("_kernel")
    }  # functions with other names are called by these
    assert {build.kernel for build in launches("default")} == kernels
    assert all(isinstance(kernel, JITFunction) for kernel in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [pytest.param("sm_80", marks=pytest.mark.long), "sm_90"])
def test_every_kernel_compiles_without_spills(
    architecture: str, launches: Callable[[str], list[Build]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    table, spills = [], []
    for build in launches(architecture):
        attributes = {(place,): [["tt.divisibility", 16]] for place in build.aligned}
        source = ASTSource(build.kernel, dict(build.signature), dict(build.constants), attributes)
        compiled = triton.compile(source, target=target, options=dict(build.options))
        cubin = tmp_path / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
        registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
        row = f"{build.kernel.__name__} {dict(build.constants)} {registers} registers, {stack + local} bytes of stack"
        table.append(row)
        # The limit on GPUs without their own block sizes, such as sm_86 and sm_89.
        assert compiled.metadata.shared <= 99 * 1024, row
        if stack or local:
            spills.append(row)
    print("\n".join(table))
    assert not spills, "\n".join(spills)

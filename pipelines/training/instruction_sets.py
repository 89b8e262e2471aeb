"""The instruction sets for which PyTorch, its libraries and our C++ operations choose their code on x86-64 CPUs.

Libraries choose the fastest code that the CPU can run, and results of different code differ in the last bits. The
parameter `instruction_sets` can restrict all of them to AVX2, which every x86-64 server CPU since about 2015 has.
"""

import os
import sys

import torch

from kernels import native
from pipelines.params import InstructionSets
from pipelines.provenance import cpu
from tcformer.errors import UserError

#: The environment variables that restrict the libraries. Each library reads its own at its first computation.
_VARIABLES: dict[InstructionSets, dict[str, str]] = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own loops
        "MKL_CBWR": "COMPATIBLE",  # matrix products: on CPUs of other makers than Intel, MKL ignores its branch AVX2
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
        "OPENBLAS_CORETYPE": "Haswell",  # NumPy's linear algebra
        native.INSTRUCTION_SETS: "avx2",  # our C++ operations
    },
}
_NEEDED = {"avx2", "fma"}  # PyTorch's code for AVX2 also needs FMA


def environment_for(chosen: InstructionSets) -> dict[str, str]:
    """The environment variables that a process needs before its first computation."""
    return dict(_VARIABLES[chosen])


def use_instruction_sets(chosen: InstructionSets) -> None:
    """Restrict this process and those that it starts, before their first computation.

    Raises:
        UserError: this CPU lacks them.
        RuntimeError: PyTorch has computed already, with other code.
    """
    _check_cpu(chosen)
    os.environ.update(environment_for(chosen))
    check_instruction_sets(chosen)


def check_instruction_sets(chosen: InstructionSets) -> None:
    """Check that this process computes with the chosen instruction sets.

    Raises:
        UserError: this CPU lacks them.
        RuntimeError: the environment variables were not there in time.
    """
    _check_cpu(chosen)
    wrong = {name: os.environ.get(name) for name, value in _VARIABLES[chosen].items() if os.environ.get(name) != value}
    used = torch.backends.cpu.get_cpu_capability()
    if wrong or (chosen == "avx2" and used != "AVX2"):
        raise RuntimeError(f"instruction_sets is {chosen}, but PyTorch uses {used}; wrong environment: {wrong}")


def _check_cpu(chosen: InstructionSets) -> None:
    if chosen == "native":
        return
    machine = cpu()
    if sys.platform != "linux" or not set(machine["instruction_sets"].split()) >= _NEEDED:
        raise UserError(
            f"params.yaml: instruction_sets is {chosen}, which this CPU ({machine['model']}) does not have: expected "
            "an x86-64 CPU with AVX2 and FMA; set instruction_sets: native, or use another machine"
        )


def effective_settings(chosen: InstructionSets) -> dict[str, str]:
    """What `chosen` means on this machine, for people who compare results of two machines."""
    operations = f"C++, {native.target()}" if native.available() else f"PyTorch ({native.reason()})"
    return {
        "chosen": chosen,
        "pytorch": torch.backends.cpu.get_cpu_capability(),
        "token_operations": operations,
        **{name: os.environ.get(name, "not set") for name in _VARIABLES["avx2"]},
    }

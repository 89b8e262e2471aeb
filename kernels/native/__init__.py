"""Token operations in C++ for CPU tensors: optional, compiled at their first use, never at import.

Call the other functions only if `available()` is true; if it is false, `reason()` returns why. TCFORMER_NATIVE=0
disables them; TCFORMER_INSTRUCTION_SETS=avx2 compiles them for all CPUs with AVX2 instead of for this one.
"""

from kernels.native.build import INSTRUCTION_SETS, target
from kernels.native.library import available, reason
from kernels.native.ops import (
    dpc_knn,
    grid_conv,
    grid_conv_backward,
    link_rows,
    segment_sum,
    segment_total,
    sort_by_row,
    token_conv,
    token_conv_backward,
)

__all__ = [
    "INSTRUCTION_SETS",
    "available",
    "dpc_knn",
    "grid_conv",
    "grid_conv_backward",
    "link_rows",
    "reason",
    "segment_sum",
    "segment_total",
    "sort_by_row",
    "target",
    "token_conv",
    "token_conv_backward",
]

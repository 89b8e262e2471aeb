"""Token operations in C++ for CPU tensors: optional, compiled at their first use, never at import.

Call the other functions only if `available()` is true; if it is false, `reason()` returns why. TCFORMER_NATIVE=0
disables them.
"""

from kernels.native.library import available, reason
from kernels.native.ops import (
    dpc_knn,
    grid_conv,
    grid_conv_backward,
    segment_sum,
    segment_total,
    sort_by_row,
    token_conv,
    token_conv_backward,
)

__all__ = [
    "available",
    "dpc_knn",
    "grid_conv",
    "grid_conv_backward",
    "reason",
    "segment_sum",
    "segment_total",
    "sort_by_row",
    "token_conv",
    "token_conv_backward",
]

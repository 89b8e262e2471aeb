"""Token operations in C++ for CPU tensors: optional, compiled at their first use, never at import.

Ask `available()` before calling the others; `reason()` says why not. TCFORMER_NATIVE=0 turns them off.
"""

from kernels.native.library import available, reason
from kernels.native.ops import dpc_knn, grid_conv, grid_conv_backward, token_conv, token_conv_backward

__all__ = [
    "available",
    "dpc_knn",
    "grid_conv",
    "grid_conv_backward",
    "reason",
    "token_conv",
    "token_conv_backward",
]

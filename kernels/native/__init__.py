"""Token operations in C++ for CPU tensors: optional, compiled at their first use, never at import.

Ask `available()` before calling the others; `reason()` says why not. TCFORMER_NATIVE=0 turns them off.
"""

from kernels.native.library import available, reason
from kernels.native.ops import dpc_knn

__all__ = ["available", "dpc_knn", "reason"]

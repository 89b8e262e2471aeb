"""Token operations: clustering, merging, conversion between tokens and feature maps, convolution and attention.

Each operation has a folder. `op.py` holds the public function, which chooses a backend (argument `backend`, environment
variable TCFORMER_KERNELS), and each `*_backend.py` is the implementation in one backend; `reference_backend.py` is the
specification. The C++ backend of all operations is in `native/`.
"""

from kernels.attention import attention
from kernels.dpc_knn import dpc_knn
from kernels.first_call import avoid_compiler_import
from kernels.merge_tokens import merge_tokens
from kernels.name_conflict import refuse_foreign_package
from kernels.token_conv import token_conv
from kernels.token_map import TokenPlan, map2token, token2map, upsample_tokens

refuse_foreign_package()
avoid_compiler_import()

__all__ = [
    "TokenPlan",
    "attention",
    "dpc_knn",
    "map2token",
    "merge_tokens",
    "token2map",
    "token_conv",
    "upsample_tokens",
]

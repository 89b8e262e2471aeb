"""Token operations: clustering, merging, the way between tokens and feature maps, convolution and attention.

Each operation has a folder: `reference.py` is its specification, `op.py` the public function, which chooses among
the implementations (argument `backend=`, environment variable TCFORMER_KERNELS).
"""

from kernels.attention import attention
from kernels.dpc_knn import dpc_knn
from kernels.identity import refuse_foreign_package
from kernels.merge_tokens import merge_tokens
from kernels.token_conv import token_conv
from kernels.token_map import TokenPlan, map2token, token2map, upsample_tokens

refuse_foreign_package()

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

"""Token operations: clustering, merging, and the way between tokens and feature maps.

Each operation has a folder: `reference.py` is the specification, `cpu.py` the fast path in plain PyTorch, and
`op.py` the public function that chooses between them (argument `backend=`, environment variable
TCFORMER_KERNELS).
"""

from kernels.dpc_knn import dpc_knn
from kernels.identity import refuse_foreign_package
from kernels.merge_tokens import merge_tokens
from kernels.token_map import TokenPlan, map2token, token2map, upsample_tokens

refuse_foreign_package()

__all__ = ["TokenPlan", "dpc_knn", "map2token", "merge_tokens", "token2map", "upsample_tokens"]

"""The C++ functions as functions of tensors.

Tensors must be contiguous CPU tensors of the dtypes given, and fit each other: nothing is checked here and
nothing has a gradient. Results do not depend on the number of threads, nor an image's on the rest of its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.native.library import call


def dpc_knn(x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`.

    Args:
        x: (B, N, C) float32.
        num_clusters: M, from 1 to N.
        k: at least 1; all real tokens if there are fewer.
        mask: (B, N) bool, true for real tokens. The others influence nothing, bit for bit.

    Returns:
        centres: (B, M) int64, ascending. If an image has fewer real tokens than M, all of them and its first
            masked ones.
        assign: (B, N) int64, 0 for masked tokens.
    """
    batch, tokens, channels = x.shape
    centres = torch.empty(batch, num_clusters, dtype=torch.int64)
    assign = torch.empty(batch, tokens, dtype=torch.int64)
    call("tcformer_dpc_knn", x, mask, batch, tokens, channels, num_clusters, k, centres, assign)
    return centres, assign

"""DPC-KNN: the public function."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import choose_backend
from kernels.dpc_knn import cpu, reference

_IMPLEMENTATIONS = {"reference": reference, "cpu": cpu}


@torch.no_grad()
def dpc_knn(x: Tensor, num_clusters: int, k: int = 5, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Cluster tokens by density peaks among their k nearest neighbours.

    Distances are Euclidean / sqrt(C). A token's density is exp(-mean of its k smallest squared distances),
    itself among the k; its delta the distance to the nearest denser token, for the densest one the largest
    distance. The M tokens of highest density * delta are the centres; each token joins its nearest centre, a
    centre itself.

    Of equal values the lower index comes first, everywhere; there is no noise. An image's clusters depend on
    that image alone. Computed in float32, for float64 inputs in float64, also under autocast. Not
    differentiable.

    Args:
        x: (B, N, C) token features, any floating dtype and layout, N >= 1.
        num_clusters: M, from 1 to N.
        k: neighbours that the density looks at; all tokens if there are fewer.
        backend: "reference" or "cpu"; by default what the environment variable TCFORMER_KERNELS says, else
            "cpu".

    Returns:
        centres: (B, M) int64, token index of each cluster's centre, ascending.
        assign: (B, N) int64, cluster of each token in [0, M). With NaN or infinite features the clusters mean
            nothing, but the indices stay in range.

    Raises:
        ValueError: `x` is not (B, N, C), has no token, or `num_clusters` or `k` is out of range.

    Source: TCFormer (Zeng et al., CVPR 2022), equations 1 to 3; Du et al., DPC-KNN, 2016.
    """
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, N, C) with at least one token, but it is {tuple(x.shape)}")
    if not 1 <= num_clusters <= x.shape[1]:
        raise ValueError(f"num_clusters must be from 1 to the number of tokens {x.shape[1]}, but it is {num_clusters}")
    if k < 1:
        raise ValueError(f"k must be at least 1, but it is {k}")
    with torch.autocast(x.device.type, enabled=False):
        if x.dtype != torch.float64:
            x = x.float()
        return _IMPLEMENTATIONS[choose_backend(backend)].dpc_knn(x.contiguous(), num_clusters, k)

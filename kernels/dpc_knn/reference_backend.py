"""DPC-KNN with its total order, from all pairwise distances: the specification.

Everything is ordered by (value, index): of two equal values, the one with the lower index comes first. Squared
distances that rounding alone could produce count as 0 (see `kernels.dpc_knn.rounding`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.dpc_knn.masks_and_parts import cluster_real_tokens
from kernels.dpc_knn.rounding import rounding_limit


def dpc_knn(x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`."""
    if mask is not None:
        return cluster_real_tokens(dpc_knn, x, num_clusters, k, mask)
    clusters = [_cluster_image(image, num_clusters, min(k, x.shape[1])) for image in x]
    centres, assign = zip(*clusters, strict=True)
    return torch.stack(centres), torch.stack(assign)


def _cluster_image(x: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    """Centres (M,) and assignment (N,) of one image's tokens (N, C)."""
    # Sums of squared differences, because |a|^2 - 2ab + |b|^2 cancels; row by row, because (N, N, C) is large.
    distance = torch.stack([(token - x).square().sum(1) for token in x])  # (N, N), squared
    distance.masked_fill_(distance < rounding_limit(distance[0]), 0)
    sparsity = distance.sort(1)[0][:, :k].sum(1) / (k * x.shape[1])  # (N,), density = exp(-sparsity)

    order = sparsity.sort(stable=True)[1]  # densest first
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(x), device=x.device)
    denser = rank[None, :] < rank[:, None]  # (N, N): whether the column is denser than the row
    delta = distance.masked_fill(~denser, torch.inf).amin(1)  # (N,), squared
    # log(sqrt(delta) * density) has the same order as the product and does not underflow.
    score = delta.double().log() / 2 - sparsity.double()
    # The densest token has the highest score: its density and its delta, the largest distance, are both maximal.
    score[order[0]] = torch.inf

    centres = score.sort(descending=True, stable=True)[1][:num_clusters].sort()[0]  # (M,)
    assign = distance[:, centres].argmin(1)  # (N,), the first of equally near centres
    assign[centres] = torch.arange(num_clusters, device=x.device)
    return centres, assign

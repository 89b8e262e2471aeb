"""Masks and parts for clustering functions that support neither.

Both functions select the tokens that are clustered together and pass only these on. The other tokens cannot influence
anything, not even a rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# (x, num_clusters, k) to (centres, assign), see `kernels.dpc_knn`.
ClusterFunction = Callable[..., tuple[Tensor, Tensor]]


def cluster_real_tokens(
    cluster: ClusterFunction, x: Tensor, num_clusters: int, k: int, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Cluster the tokens of each image where `mask` (B, N) is true; see `kernels.dpc_knn`."""
    batch, n, _ = x.shape
    centres = torch.empty(batch, num_clusters, dtype=torch.int64, device=x.device)
    assign = torch.zeros(batch, n, dtype=torch.int64, device=x.device)
    for i in range(batch):
        real = mask[i].nonzero()[:, 0]
        if len(real) >= num_clusters:
            image_centres, image_assign = cluster(x[i, real][None], num_clusters, k)
            centres[i] = real[image_centres[0]]
            assign[i, real] = image_assign[0]
        else:  # each real token is a cluster, and the first masked tokens are the centres of the other clusters
            padding = (~mask[i]).nonzero()[: num_clusters - len(real), 0]
            centres[i] = torch.cat([real, padding]).sort()[0]
            assign[i, real] = torch.searchsorted(centres[i], real)
    return centres, assign


def cluster_parts(
    cluster: ClusterFunction, x: Tensor, num_clusters: int, k: int, mask: Tensor | None, parts: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Cluster each of the `parts` (N,) of every image alone; see `kernels.dpc_knn`.

    Parts of equal size are clustered in one call, as if each were an image.
    """
    batch, n, channels = x.shape
    order = parts.sort(stable=True)[1]  # tokens of part 0, of part 1, ...
    sizes = torch.bincount(parts).tolist()
    clusters = apportion(sizes, num_clusters)
    first_token, first_cluster = _sums_before(sizes), _sums_before(clusters)
    centres = torch.empty(batch, num_clusters, dtype=torch.int64, device=x.device)
    assign = torch.empty(batch, n, dtype=torch.int64, device=x.device)
    for size, count in dict.fromkeys(zip(sizes, clusters, strict=True)):
        if size == 0:
            continue
        group = [p for p in range(len(sizes)) if (sizes[p], clusters[p]) == (size, count)]
        tokens = torch.stack([order[first_token[p] : first_token[p] + size] for p in group])  # (P, size)
        group_mask = None if mask is None else mask[:, tokens].flatten(0, 1)
        clustered = cluster(x[:, tokens].view(-1, size, channels), count, k, group_mask, **options)
        group_centres, group_assign = (t.view(batch, len(group), -1) for t in clustered)
        firsts = torch.tensor([first_cluster[p] for p in group], device=x.device)[:, None]  # (P, 1)
        slots = (firsts + torch.arange(count, device=x.device)).flatten()  # (P * count,)
        centres[:, slots] = tokens.expand(batch, -1, -1).gather(2, group_centres).flatten(1)
        shifted = group_assign + firsts
        if group_mask is not None:
            shifted = shifted.masked_fill(~group_mask.view_as(shifted), 0)
        assign[:, tokens.flatten()] = shifted.flatten(1)
    return centres, assign


def apportion(sizes: list[int], num_clusters: int) -> list[int]:
    """Number of clusters of each part, in proportion to its tokens, but at least one for a part that has any.

    Largest remainder method; ties go to the lower part.

    Raises:
        ValueError: there are fewer clusters than parts with tokens.
    """
    total = sum(sizes)
    occupied = [part for part, size in enumerate(sizes) if size]
    if num_clusters < len(occupied):
        raise ValueError(f"{len(occupied)} parts need at least as many clusters, but num_clusters is {num_clusters}")
    counts = [max(num_clusters * size // total, 1) if size else 0 for size in sizes]

    def remainder(part: int) -> int:
        return num_clusters * sizes[part] - total * counts[part]

    while sum(counts) < num_clusters:
        counts[max(occupied, key=lambda part: (remainder(part), -part))] += 1
    while sum(counts) > num_clusters:
        counts[min((part for part in occupied if counts[part] > 1), key=lambda part: (remainder(part), -part))] -= 1
    return counts


def _sums_before(counts: list[int]) -> list[int]:
    """Sum of the counts before each one."""
    return [sum(counts[:i]) for i in range(len(counts))]

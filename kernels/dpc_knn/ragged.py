"""Clustering images of different numbers of tokens, and images part by part, with a function that knows neither.

Both pick out the tokens that are clustered together, so the others cannot influence anything, not even a
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# (x, num_clusters, k) to (centres, assign), see `kernels.dpc_knn`.
Cluster = Callable[..., tuple[Tensor, Tensor]]


def cluster_real_tokens(cluster: Cluster, x: Tensor, num_clusters: int, k: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cluster each image's tokens where `mask` (B, N) is true; see `kernels.dpc_knn`."""
    batch, n, _ = x.shape
    centres = torch.empty(batch, num_clusters, dtype=torch.int64, device=x.device)
    assign = torch.zeros(batch, n, dtype=torch.int64, device=x.device)
    for i in range(batch):
        real = mask[i].nonzero()[:, 0]
        if len(real) >= num_clusters:
            own_centres, own_assign = cluster(x[i, real][None], num_clusters, k)
            centres[i] = real[own_centres[0]]
            assign[i, real] = own_assign[0]
        else:  # each real token is a cluster; masked ones make up the number
            padding = (~mask[i]).nonzero()[: num_clusters - len(real), 0]
            centres[i] = torch.cat([real, padding]).sort()[0]
            assign[i, real] = torch.searchsorted(centres[i], real)
    return centres, assign


def cluster_parts(
    cluster: Cluster, x: Tensor, num_clusters: int, k: int, mask: Tensor | None, parts: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Cluster each of the `parts` (N,) of every image alone; see `kernels.dpc_knn`.

    Parts of equal size are clustered in one call, as if each were an image.
    """
    batch, n, channels = x.shape
    order = parts.sort(stable=True)[1]  # tokens of part 0, of part 1, ...
    sizes = torch.bincount(parts).tolist()
    clusters = apportion(sizes, num_clusters)
    first_token, first_cluster = _running_total(sizes), _running_total(clusters)
    centres = torch.empty(batch, num_clusters, dtype=torch.int64, device=x.device)
    assign = torch.empty(batch, n, dtype=torch.int64, device=x.device)
    for size, count in dict.fromkeys(zip(sizes, clusters, strict=True)):
        if size == 0:
            continue
        alike = [p for p in range(len(sizes)) if (sizes[p], clusters[p]) == (size, count)]
        tokens = torch.stack([order[first_token[p] : first_token[p] + size] for p in alike])  # (P, size)
        own_mask = None if mask is None else mask[:, tokens].flatten(0, 1)
        own = cluster(x[:, tokens].view(-1, size, channels), count, k, own_mask, **options)
        own_centres, own_assign = (t.view(batch, len(alike), -1) for t in own)
        firsts = torch.tensor([first_cluster[p] for p in alike], device=x.device)[:, None]  # (P, 1)
        slots = (firsts + torch.arange(count, device=x.device)).flatten()  # (P * count,)
        centres[:, slots] = tokens.expand(batch, -1, -1).gather(2, own_centres).flatten(1)
        shifted = own_assign + firsts
        if own_mask is not None:
            shifted = shifted.masked_fill(~own_mask.view_as(shifted), 0)
        assign[:, tokens.flatten()] = shifted.flatten(1)
    return centres, assign


def apportion(sizes: list[int], num_clusters: int) -> list[int]:
    """Clusters of each part, in proportion to its tokens, but at least one for a part that has any.

    Whole shares first, then by the largest remainder, ties to the lower part.

    Raises:
        ValueError: there are fewer clusters than parts with tokens.
    """
    total = sum(sizes)
    occupied = [part for part, size in enumerate(sizes) if size]
    if num_clusters < len(occupied):
        raise ValueError(f"{len(occupied)} parts need at least as many clusters, but num_clusters is {num_clusters}")
    counts = [max(num_clusters * size // total, 1) if size else 0 for size in sizes]

    def due(part: int) -> int:
        return num_clusters * sizes[part] - total * counts[part]

    while sum(counts) < num_clusters:
        counts[max(occupied, key=lambda part: (due(part), -part))] += 1
    while sum(counts) > num_clusters:
        counts[min((part for part in occupied if counts[part] > 1), key=lambda part: (due(part), -part))] -= 1
    return counts


def _running_total(counts: list[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]

"""DPC-KNN in plain PyTorch.

Few tokens: their distances are kept and looked at three times. Many tokens: no matrix of all distances is
made, and hardly any distance is computed twice. A token's k nearest neighbours usually answer the two later
questions as well. If one of them is denser, the nearest such one is the nearest denser token of all. If one
of them is a centre and strictly nearer than the last of the list, the nearest such one is the nearest centre
of all. Only the remaining tokens are compared again, with the denser tokens or with the centres alone.

Matrix products are computed for one image at a time, because a batched product may round differently for
another batch; the rest runs over the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from kernels.dpc_knn.ragged import cluster_real_tokens
from kernels.dpc_knn.rounding import negligible

# Up to this many tokens the distances of the whole batch are kept, which then is faster.
_KEEP_TOKENS = 512
# Else this many of them are computed at a time, so that they stay in a core's cache.
_BLOCK_DISTANCES = 1 << 20


def dpc_knn(x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`."""
    if mask is not None:
        return cluster_real_tokens(dpc_knn, x, num_clusters, k, mask)
    # Distances do not change when all tokens move, and are more exact near the origin. One token is subtracted
    # rather than the mean, so that small integers stay integers and equal distances stay equal.
    x = x - x[:, :1]
    norm = x.square().sum(2)  # (B, N)
    cluster_images = _cluster_few_tokens if x.shape[1] <= _KEEP_TOKENS else _cluster_many_tokens
    return cluster_images(x, norm, num_clusters, min(k, x.shape[1]))


def _cluster_few_tokens(x: Tensor, norm: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    batch, n, c = x.shape
    distance = x.new_empty(batch, n, n)
    for i in range(batch):
        _shifted_distances(x[i], x[i], norm[i], out=distance[i])
    _exact_zeros(distance.add_(norm[:, :, None]), norm)
    distance.diagonal(dim1=1, dim2=2).zero_()
    near = distance.topk(k, largest=False)[0]  # (B, N, k)
    sparsity = near.sum(2) / (k * c)  # (B, N), density = exp(-sparsity)
    rank = _rank(sparsity)
    denser = rank[:, None, :] < rank[:, :, None]  # (B, N, N): column before row
    delta = distance.masked_fill(~denser, torch.inf).amin(2)  # (B, N), squared
    centres, cluster = _choose_centres(delta, sparsity, rank, num_clusters)
    assign = distance.gather(2, centres[:, None, :].expand(-1, n, -1)).argmin(2)  # (B, N)
    return centres, torch.where(cluster < num_clusters, cluster, assign)


def _cluster_many_tokens(x: Tensor, norm: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    near, neighbour = _nearest(x, norm, k)  # (B, N, k)
    sparsity = near.sum(2) / (k * x.shape[2])  # (B, N), density = exp(-sparsity)
    rank = _rank(sparsity)
    neighbour_rank = rank.gather(1, neighbour.flatten(1)).view_as(neighbour)
    delta = _least_listed(near.masked_fill(neighbour_rank >= rank[:, :, None], torch.inf))  # (B, N), squared
    _search_denser(delta, x, norm, rank)
    centres, cluster = _choose_centres(delta, sparsity, rank, num_clusters)
    neighbour_cluster = cluster.gather(1, neighbour.flatten(1)).view_as(neighbour)
    assign = _nearest_listed(near, neighbour_cluster, num_clusters)  # (B, N)
    _search_centres(assign, x, norm, centres)
    return centres, torch.where(cluster < num_clusters, cluster, assign)


def _exact_zeros(distance: Tensor, norm: Tensor) -> Tensor:
    """Set to 0, in place, what is negligible in squared distances (B, ...) of images with `norm` (B, N).

    Without B for one image.
    """
    limit = negligible(norm)
    limit = limit.view(limit.shape + (1,) * (distance.ndim - limit.ndim))
    return distance.clamp_(min=0).masked_fill_(distance < limit, 0)


def _rank(sparsity: Tensor) -> Tensor:
    """Place of each token (B, N) in the order from dense to sparse."""
    order = sparsity.sort(stable=True)[1]
    index = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, index)


def _choose_centres(delta: Tensor, sparsity: Tensor, rank: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Centres (B, M) ascending, and the cluster (B, N) of each token that is a centre, M for the others."""
    # log(sqrt(delta) * density) orders like the product and does not underflow.
    score = delta.double().log() / 2 - sparsity.double()
    # The densest token comes first: its density and its delta, the largest distance, are both the largest.
    score = score.masked_fill(rank == 0, torch.inf)
    centres = score.sort(descending=True, stable=True)[1][:, :num_clusters].sort()[0]
    clusters = torch.arange(num_clusters, device=rank.device).expand_as(centres)
    return centres, torch.full_like(rank, num_clusters).scatter_(1, centres, clusters)


def _shifted_distances(a: Tensor, b: Tensor, norm_b: Tensor, out: Tensor | None = None) -> Tensor:
    """Squared distances from rows of `a` to rows of `b`, less the squared norm of the row of `a`.

    Within a row they are ordered like the distances, and a pass over the matrix is saved.
    """
    return torch.addmm(norm_b, a, b.T, alpha=-2, out=out)


def _nearest(x: Tensor, norm: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances, ascending, to the k nearest tokens (B, N, k), and which they are.

    Of tokens equally far any may be listed.
    """
    batch, n, _ = x.shape
    near = x.new_empty(batch, n, k)
    neighbour = torch.empty(batch, n, k, dtype=torch.int64, device=x.device)
    block = min(max(1, _BLOCK_DISTANCES // n), n)
    memory = x.new_empty(block, n)  # used again and again: fresh memory costs as much as the product
    for i in range(batch):
        for start in range(0, n, block):
            rows = slice(start, min(start + block, n))
            distance = memory[: rows.stop - start]  # (rows, N)
            _shifted_distances(x[i, rows], x[i], norm[i], out=distance)
            distance.diagonal(start).copy_(-norm[i, rows])  # exactly 0 to itself
            near[i, rows], neighbour[i, rows] = _smallest(distance, k)
    return _exact_zeros(near.add_(norm[:, :, None]), norm), neighbour


def _smallest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row (rows, N), ascending, and their columns: `topk`, but faster for long rows.

    The row is folded to some 300 groups of columns. The k groups with the smallest minima hold the k smallest.
    """
    n = distance.shape[1]
    folds = n // (64 * k)  # from 64 * k elements `topk` selects with a heap, below with a slower method
    if folds < 2:
        return distance.topk(k, largest=False)
    groups = n // folds
    parts = distance[:, : folds * groups].split(groups, dim=1)
    least = reduce(torch.minimum, parts)  # (rows, groups)
    group = least.topk(k, largest=False)[1]  # (rows, k)
    columns = [group + fold * groups for fold in range(folds)]
    rest = torch.arange(folds * groups, n, device=distance.device)  # columns of no group
    candidates = torch.cat([*columns, rest.expand(len(distance), -1)], dim=1)
    nearest, place = distance.gather(1, candidates).topk(k, largest=False)
    return nearest, candidates.gather(1, place)


def _search_denser(delta: Tensor, x: Tensor, norm: Tensor, rank: Tensor) -> None:
    """Fill in, where `delta` (B, N) is infinite, the squared distance to the nearest denser token.

    Of each image's densest token it stays infinite.
    """
    for i, some in _blocks(delta.isinf()):
        distance = _shifted_distances(x[i, some], x[i], norm[i])  # (some, N)
        denser = rank[i] < rank[i, some, None]
        nearest = distance.masked_fill_(~denser, torch.inf).amin(1)  # (some,)
        delta[i, some] = _exact_zeros(nearest.add_(norm[i, some]), norm[i])


def _nearest_listed(near: Tensor, neighbour_cluster: Tensor, num_clusters: int) -> Tensor:
    """Cluster (B, N) of each token if its list of neighbours (B, N, k) holds it for certain, else M."""
    nearest = _least_listed(near.masked_fill(neighbour_cluster == num_clusters, torch.inf))  # (B, N)
    # Of several centres equally near the first. All of them are listed, since the list goes further.
    first = _least_listed(neighbour_cluster.masked_fill(near != nearest[:, :, None], num_clusters))
    return first.masked_fill_(nearest >= near[:, :, -1], num_clusters)


def _least_listed(values: Tensor) -> Tensor:
    """Minimum of (B, N, k) over k; `amin` is slow along so short a dimension."""
    return reduce(torch.minimum, values.unbind(2))


def _search_centres(assign: Tensor, x: Tensor, norm: Tensor, centres: Tensor) -> None:
    """Fill in, where `assign` (B, N) is M, the cluster of the nearest of the `centres` (B, M)."""
    for i, some in _blocks(assign == centres.shape[1]):
        distance = _shifted_distances(x[i, some], x[i, centres[i]], norm[i, centres[i]])  # (some, M)
        nearest = distance.argmin(1)
        # Of several at no distance the first. Such tokens are few, or the image is flat.
        limit = negligible(norm[i]) - norm[i, some]  # (some,)
        same = (distance.gather(1, nearest[:, None])[:, 0] < limit).nonzero()[:, 0]
        nearest[same] = (distance[same] < limit[same, None]).int().argmax(1)
        assign[i, some] = nearest


def _blocks(wanted: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where `wanted` (B, N) is true: an image and tokens of it, few enough for one block of distances."""
    block = max(1, _BLOCK_DISTANCES // wanted.shape[1])
    token = wanted.nonzero()[:, 1]
    for image, tokens in enumerate(token.split(wanted.sum(1).tolist())):
        for some in tokens.split(block):
            if len(some):
                yield image, some

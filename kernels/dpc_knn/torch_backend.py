"""DPC-KNN in plain PyTorch.

For few tokens, all distances are stored and used three times. For many tokens, no matrix of all distances is stored,
and hardly any distance is computed twice: the list of a token's k nearest neighbours usually gives its nearest denser
token and its nearest centre as well. If a listed neighbour is denser, the nearest such neighbour is the nearest denser
token of all. If a listed neighbour is a centre and strictly nearer than the last of the list, the nearest such
neighbour is the nearest centre of all. Only the remaining tokens are compared again, with the denser tokens or with the
centres.

Matrix products are computed for one image at a time, because a batched product may round differently for another batch
size. Everything else is computed for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from kernels.dpc_knn.masks_and_parts import cluster_real_tokens
from kernels.dpc_knn.rounding import rounding_limit

# Up to this many tokens, storing all distances of the batch is faster.
_MAX_TOKENS_STORED = 512
# With more tokens, this many distances are computed at a time, so that they stay in a core's cache.
_BLOCK_DISTANCES = 1 << 20


def dpc_knn(x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`."""
    if mask is not None:
        return cluster_real_tokens(dpc_knn, x, num_clusters, k, mask)
    # Moving all tokens does not change their distances, which are more exact near the origin. One token is subtracted
    # rather than the mean, so that small integers stay integers and equal distances stay equal.
    x = x - x[:, :1]
    norm = x.square().sum(2)  # (B, N)
    cluster_images = _cluster_few_tokens if x.shape[1] <= _MAX_TOKENS_STORED else _cluster_many_tokens
    return cluster_images(x, norm, num_clusters, min(k, x.shape[1]))


def _cluster_few_tokens(x: Tensor, norm: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    batch, n, c = x.shape
    distance = x.new_empty(batch, n, n)
    for i in range(batch):
        _shifted_distances(x[i], x[i], norm[i], out=distance[i])
    _round_to_zero(distance.add_(norm[:, :, None]), norm)
    distance.diagonal(dim1=1, dim2=2).zero_()
    near = distance.topk(k, largest=False)[0]  # (B, N, k)
    sparsity = near.sum(2) / (k * c)  # (B, N), density = exp(-sparsity)
    rank = _rank(sparsity)
    denser = rank[:, None, :] < rank[:, :, None]  # (B, N, N): whether the column is denser than the row
    delta = distance.masked_fill(~denser, torch.inf).amin(2)  # (B, N), squared
    centres, cluster = _choose_centres(delta, sparsity, rank, num_clusters)
    assign = distance.gather(2, centres[:, None, :].expand(-1, n, -1)).argmin(2)  # (B, N)
    return centres, torch.where(cluster < num_clusters, cluster, assign)


def _cluster_many_tokens(x: Tensor, norm: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    near, neighbour = _nearest(x, norm, k)  # (B, N, k)
    sparsity = near.sum(2) / (k * x.shape[2])  # (B, N), density = exp(-sparsity)
    rank = _rank(sparsity)
    neighbour_rank = rank.gather(1, neighbour.flatten(1)).view_as(neighbour)
    delta = _list_minimum(near.masked_fill(neighbour_rank >= rank[:, :, None], torch.inf))  # (B, N), squared
    _search_denser(delta, x, norm, rank)
    centres, cluster = _choose_centres(delta, sparsity, rank, num_clusters)
    neighbour_cluster = cluster.gather(1, neighbour.flatten(1)).view_as(neighbour)
    assign = _nearest_listed(near, neighbour_cluster, num_clusters)  # (B, N)
    _search_centres(assign, x, norm, centres)
    return centres, torch.where(cluster < num_clusters, cluster, assign)


def _round_to_zero(distance: Tensor, norm: Tensor) -> Tensor:
    """Set squared distances (B, ...) that are rounding errors to 0, in place.

    `norm` (B, N) are the squared norms of the images' tokens. For a single image, both come without B.
    """
    limit = rounding_limit(norm)
    limit = limit.view(limit.shape + (1,) * (distance.ndim - limit.ndim))
    return distance.clamp_(min=0).masked_fill_(distance < limit, 0)


def _rank(sparsity: Tensor) -> Tensor:
    """Rank (B, N) of each token in the order from dense to sparse."""
    order = sparsity.sort(stable=True)[1]
    index = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, index)


def _choose_centres(delta: Tensor, sparsity: Tensor, rank: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Centres (B, M), ascending, and for each token (B, N) its cluster if it is a centre, else M."""
    # log(sqrt(delta) * density) has the same order as the product and does not underflow.
    score = delta.double().log() / 2 - sparsity.double()
    # The densest token has the highest score: its density and its delta, the largest distance, are both maximal.
    score = score.masked_fill(rank == 0, torch.inf)
    centres = score.sort(descending=True, stable=True)[1][:, :num_clusters].sort()[0]
    clusters = torch.arange(num_clusters, device=rank.device).expand_as(centres)
    return centres, torch.full_like(rank, num_clusters).scatter_(1, centres, clusters)


def _shifted_distances(a: Tensor, b: Tensor, norm_b: Tensor, out: Tensor | None = None) -> Tensor:
    """Squared distances from rows of `a` to rows of `b`, minus the squared norm of the row of `a`.

    Within a row, they have the same order as the distances; not adding the norm saves a pass over the matrix.
    """
    return torch.addmm(norm_b, a, b.T, alpha=-2, out=out)


def _nearest(x: Tensor, norm: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances (B, N, k), ascending, to the k nearest tokens, and the indices (B, N, k) of these.

    Of several tokens at the same distance, any may be listed.
    """
    batch, n, _ = x.shape
    near = x.new_empty(batch, n, k)
    neighbour = torch.empty(batch, n, k, dtype=torch.int64, device=x.device)
    block = min(max(1, _BLOCK_DISTANCES // n), n)
    memory = x.new_empty(block, n)  # reused: fresh memory costs as much time as the product
    for i in range(batch):
        for start in range(0, n, block):
            rows = slice(start, min(start + block, n))
            distance = memory[: rows.stop - start]  # (rows, N)
            _shifted_distances(x[i, rows], x[i], norm[i], out=distance)
            distance.diagonal(start).copy_(-norm[i, rows])  # the distance to itself is exactly 0
            near[i, rows], neighbour[i, rows] = _smallest(distance, k)
    return _round_to_zero(near.add_(norm[:, :, None]), norm), neighbour


def _smallest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest values of each row (rows, N), ascending, and their columns: a faster `topk` for long rows.

    The columns are divided into about 300 groups. The k groups with the smallest minima contain the k smallest values.
    """
    n = distance.shape[1]
    columns_per_group = n // (64 * k)  # `topk` uses a heap from 64 * k values on, and a slower method for fewer
    if columns_per_group < 2:
        return distance.topk(k, largest=False)
    groups = n // columns_per_group
    slices = distance[:, : columns_per_group * groups].split(groups, dim=1)
    minima = reduce(torch.minimum, slices)  # (rows, groups)
    group = minima.topk(k, largest=False)[1]  # (rows, k)
    columns = [group + i * groups for i in range(columns_per_group)]
    rest = torch.arange(columns_per_group * groups, n, device=distance.device)  # columns that are in no group
    candidates = torch.cat([*columns, rest.expand(len(distance), -1)], dim=1)
    nearest, place = distance.gather(1, candidates).topk(k, largest=False)
    return nearest, candidates.gather(1, place)


def _search_denser(delta: Tensor, x: Tensor, norm: Tensor, rank: Tensor) -> None:
    """Replace infinite entries of `delta` (B, N) by the squared distance to the nearest denser token.

    The entry of each image's densest token stays infinite.
    """
    for i, some in _blocks(delta.isinf()):
        distance = _shifted_distances(x[i, some], x[i], norm[i])  # (some, N)
        denser = rank[i] < rank[i, some, None]
        nearest = distance.masked_fill_(~denser, torch.inf).amin(1)  # (some,)
        delta[i, some] = _round_to_zero(nearest.add_(norm[i, some]), norm[i])


def _nearest_listed(near: Tensor, neighbour_cluster: Tensor, num_clusters: int) -> Tensor:
    """Cluster (B, N) of each token if its neighbours (B, N, k) certainly include its nearest centre, else M."""
    nearest = _list_minimum(near.masked_fill(neighbour_cluster == num_clusters, torch.inf))  # (B, N)
    # Of several equally near centres, the first one. All of them are in the list, because the list goes further.
    first = _list_minimum(neighbour_cluster.masked_fill(near != nearest[:, :, None], num_clusters))
    return first.masked_fill_(nearest >= near[:, :, -1], num_clusters)


def _list_minimum(values: Tensor) -> Tensor:
    """Minimum of (B, N, k) over k; `amin` is slow along such a short dimension."""
    return reduce(torch.minimum, values.unbind(2))


def _search_centres(assign: Tensor, x: Tensor, norm: Tensor, centres: Tensor) -> None:
    """Replace entries of `assign` (B, N) that are M by the cluster of the nearest of the `centres` (B, M)."""
    for i, some in _blocks(assign == centres.shape[1]):
        distance = _shifted_distances(x[i, some], x[i, centres[i]], norm[i, centres[i]])  # (some, M)
        nearest = distance.argmin(1)
        # Of several centres at distance 0, the first one. Such tokens are few, unless the image is flat.
        limit = rounding_limit(norm[i]) - norm[i, some]  # (some,)
        at_zero = (distance.gather(1, nearest[:, None])[:, 0] < limit).nonzero()[:, 0]
        nearest[at_zero] = (distance[at_zero] < limit[at_zero, None]).int().argmax(1)
        assign[i, some] = nearest


def _blocks(wanted: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Image index and token indices where `wanted` (B, N) is true, in groups that fit one block of distances."""
    block = max(1, _BLOCK_DISTANCES // wanted.shape[1])
    token = wanted.nonzero()[:, 1]
    for image, tokens in enumerate(token.split(wanted.sum(1).tolist())):
        for some in tokens.split(block):
            if len(some):
                yield image, some

"""DPC-KNN of a whole batch in standard operators, with shapes that depend on no values, for export.

Sorts are stable and of several minima the first one is taken, so ties go to the lower index as in the specification.

Distances are computed in float64 and then rounded. Runtimes round matrix products differently. In float32 these
differences alone decided a near tie in about one of thirty 224x224 images, while the rounding errors of the layers
before decided one in none of 96. Uses up to 20 * N^2 bytes of memory per image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle

import torch
from torch import Tensor

from kernels.dpc_knn.masks_and_parts import apportion
from kernels.dpc_knn.rounding import rounding_limit

Parts = tuple[int, ...]

_recorded: ContextVar[list[Parts] | None] = ContextVar("recorded", default=None)
_known: ContextVar[Iterator[Parts] | None] = ContextVar("known", default=None)


@contextmanager
def record_parts() -> Iterator[list[Parts]]:
    """Record the part of each token, for every `dpc_knn` call with parts inside this context, in the yielded list."""
    parts: list[Parts] = []
    token = _recorded.set(parts)
    try:
        yield parts
    finally:
        _recorded.reset(token)


@contextmanager
def known_parts(parts: list[Parts]) -> Iterator[None]:
    """Give `dpc_knn` calls inside this context, whose tensors may have no values, the parts from `record_parts`."""
    token = _known.set(cycle(parts))
    try:
        yield
    finally:
        _known.reset(token)


def dpc_knn(
    x: Tensor, num_clusters: int, k: int, mask: Tensor | None = None, parts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `kernels.dpc_knn`. Shapes depend on the values of `parts`: for export, use `known_parts`."""
    if parts is None:
        return _cluster(x, num_clusters, k, mask)
    known, recorded = _known.get(), _recorded.get()
    part_of_token: Parts = tuple(parts.tolist()) if known is None else next(known)
    if recorded is not None:
        recorded.append(part_of_token)
    return _cluster_parts(x, num_clusters, k, mask, part_of_token)


def _cluster(x: Tensor, num_clusters: int, k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    (n, c), dtype = x.shape[1:], x.dtype
    index = torch.arange(n, device=x.device)
    # Moving all tokens does not change their distances, which are more exact near the origin. One token is subtracted
    # rather than the mean, so that small integers stay integers and equal distances stay equal.
    x = (x - x[:, :1]).nan_to_num(0.0, 0.0, 0.0).double()
    product = (-2 * x) @ x.mT  # (B, N, N)
    # Norms from the diagonal, so that a token's distance to itself and to its copies is exactly 0.
    norm = product.flatten(1)[:, index * (n + 1)] / -2  # (B, N)
    distance = (product + norm[:, None] + norm[:, :, None]).clamp(min=0).to(dtype)  # (B, N, N), squared
    if mask is None:
        from_first = distance[:, 0]  # (B, N)
    else:
        first = mask.int().argmax(1, keepdim=True)[:, None].expand(-1, -1, n)  # (B, 1, N), the first real token
        from_first = distance.gather(1, first)[:, 0].masked_fill(~mask, 0)
    distance = distance.masked_fill(distance < rounding_limit(from_first)[:, None, None], 0)
    if mask is not None:
        distance = distance.masked_fill(~mask[:, None], torch.inf)

    near = distance.topk(min(k, n), largest=False)[0]  # (B, N, k)
    if mask is None:
        sparsity = near.sum(2) / (min(k, n) * c)  # (B, N), density = exp(-sparsity)
    else:
        listed = mask.sum(1, keepdim=True).clamp(1, k)
        sparsity = near.masked_fill(near.isinf(), 0).sum(2) / (listed * c)
        sparsity = sparsity.masked_fill(~mask, torch.inf)

    order = sparsity.sort(dim=1, stable=True)[1]  # densest first
    rank = torch.zeros_like(order).scatter(1, order, index.expand_as(order))
    denser = rank[:, None, :] < rank[:, :, None]  # (B, N, N): whether the column is denser than the row
    delta = distance.masked_fill(~denser, torch.inf).amin(2)  # (B, N), squared
    # log(sqrt(delta) * density) has the same order as the product and does not underflow.
    score = delta.double().log() / 2 - sparsity.double()
    # The densest token has the highest score: its density and its delta, the largest distance, are both maximal.
    score = score.masked_fill(rank == 0, torch.inf)
    if mask is not None:  # padding comes after copies of denser tokens, whose delta is 0 and score -inf
        score = score.clamp(min=torch.finfo(score.dtype).min).masked_fill(~mask, -torch.inf)

    centres = score.sort(dim=1, descending=True, stable=True)[1][:, :num_clusters].sort(dim=1)[0]  # (B, M)
    first = torch.arange(x.shape[0], device=x.device)[:, None] * n
    rows = distance.flatten(0, 1)[(centres + first).flatten()].unflatten(0, (-1, num_clusters))  # (B, M, N)
    nearest = rows.argmin(1)  # (B, N)
    assign = nearest.scatter(1, centres, index[:num_clusters].expand_as(centres))
    return centres, assign if mask is None else assign.masked_fill(~mask, 0)


def _cluster_parts(
    x: Tensor, num_clusters: int, k: int, mask: Tensor | None, part_of_token: Parts
) -> tuple[Tensor, Tensor]:
    """Cluster each part alone; parts of equal size are clustered in one call, as if each were an image."""
    tokens: list[list[int]] = [[] for _ in range(max(part_of_token) + 1)]  # of each part
    for token, part in enumerate(part_of_token):
        tokens[part].append(token)
    clusters = apportion([len(part_tokens) for part_tokens in tokens], num_clusters)
    first_cluster = [sum(clusters[:part]) for part in range(len(clusters))]

    all_centres, all_assign, slots, places = [], [], [], []
    for size, count in dict.fromkeys(zip((len(part_tokens) for part_tokens in tokens), clusters, strict=True)):
        if size == 0:
            continue
        group = [p for p in range(len(tokens)) if (len(tokens[p]), clusters[p]) == (size, count)]
        index = torch.tensor([tokens[p] for p in group], device=x.device)  # (P, size)
        first = torch.tensor([first_cluster[p] for p in group], device=x.device)[:, None]  # (P, 1)
        group_mask = None if mask is None else mask[:, index].flatten(0, 1)
        centres, assign = _cluster(x[:, index].flatten(0, 1), count, k, group_mask)  # (B * P, count), (B * P, size)
        # The tokens of a part ascend, so the token indices of its centres ascend as its centres do.
        token_index = index.expand(x.shape[0], -1, -1).flatten(0, 1)  # (B * P, size)
        all_centres.append(token_index.gather(1, centres).unflatten(0, (-1, len(group))).flatten(1))
        assign = assign.unflatten(0, (-1, len(group))) + first
        all_assign.append(assign.flatten(1))
        slots += [first_cluster[p] + i for p in group for i in range(count)]
        places += [token for p in group for token in tokens[p]]
    centres = torch.cat(all_centres, 1)[:, _inverse(slots, x.device)]
    assign = torch.cat(all_assign, 1)[:, _inverse(places, x.device)]
    return centres, assign if mask is None else assign.masked_fill(~mask, 0)


def _inverse(order: list[int], device: torch.device) -> Tensor:
    """Inverse of the permutation `order`."""
    return torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=device)

"""DPC-KNN: the public function and the operator behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import backend_module, choose_backend, choose_strict, traceable_backend, without_autocast
from kernels.dpc_knn.masks_and_parts import ClusterFunction, cluster_parts


def dpc_knn(
    x: Tensor,
    num_clusters: int,
    k: int = 5,
    mask: Tensor | None = None,
    parts: Tensor | None = None,
    *,
    backend: str | None = None,
    strict: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Cluster tokens by density peaks among their k nearest neighbours.

    Distances are Euclidean / sqrt(C). The density of a token is exp(-mean of its k smallest squared distances), the
    distance to itself included. Its delta is the distance to the nearest denser token; for the densest token it is the
    largest distance. The M tokens with the highest density * delta are the centres. Each token joins its nearest
    centre, and a centre joins itself.

    Ties always go to the lower index; there is no noise. Distances that rounding alone could produce count as 0 (see
    `kernels.dpc_knn.rounding`). The clusters of an image depend on that image alone. Computed in float32, for float64
    inputs in float64, also under autocast. Not differentiable.

    Args:
        x: (B, N, C) token features, any floating dtype and layout, N >= 1.
        num_clusters: M, from 1 to N.
        k: number of neighbours that determine the density; all tokens if there are fewer.
        mask: (B, N) bool, false for padding, which influences nothing. If an image has fewer tokens than M, each of
            them is a cluster, and the first tokens of the padding are the centres of clusters without members.
        parts: (N,) int64 from 0, the part of each token, the same for all images. Each part is clustered alone. The M
            clusters are divided among the parts in proportion to their tokens, at least one each (largest remainder,
            ties to the lower part), and numbered part after part. Costs a synchronisation on GPUs.
        backend: one of `kernels.backend.BACKENDS`; by default the value of the environment variable TCFORMER_KERNELS,
            else the fastest one for the device.
        strict: on GPUs, find neighbours by IEEE float32 products instead of tf32 products whose best 8 candidates are
            computed again in float32; by default whether the environment variable TCFORMER_STRICT is 1.

    Returns:
        centres: (B, M) int64, token index of each cluster's centre, ascending (within each part).
        assign: (B, N) int64, cluster of each token in [0, M); 0 for padding, which therefore needs a log_weight of -inf
            in `merge_tokens`. With NaN or infinite features the clusters are meaningless, but the indices are in range.

    Raises:
        ValueError: `x` is not (B, N, C) or has no token, `num_clusters` or `k` is out of range, or the shape or dtype
            of `mask` or `parts` is wrong.

    Source: TCFormer (Zeng et al., CVPR 2022), equations 1 to 3, parts: section 6; Du et al., DPC-KNN, 2016.
    """
    _check(x, num_clusters, k, mask, parts)
    x = x.detach()
    if traceable_backend(backend) == "portable":
        with without_autocast(x.device):
            return backend_module("dpc_knn", "portable").dpc_knn(_at_least_float32(x), num_clusters, k, mask, parts)
    return _dpc_knn(x, num_clusters, k, mask, parts, backend or "", choose_strict(strict))


@torch.library.custom_op("tcformer::dpc_knn", mutates_args=())
def _dpc_knn(
    x: Tensor, num_clusters: int, k: int, mask: Tensor | None, parts: Tensor | None, backend: str, strict: bool
) -> tuple[Tensor, Tensor]:
    with without_autocast(x.device):
        x = _at_least_float32(x).contiguous()
        mask = None if mask is None else mask.contiguous()
        if x.shape[0] == 0:
            return _fake(x, num_clusters, k, mask, parts, backend, strict)
        cluster = _cluster_function(x, choose_backend(backend, x.device), strict)
        if parts is not None:
            return cluster_parts(cluster, x, num_clusters, k, mask, parts)
        return cluster(x, num_clusters, k, mask)


@_dpc_knn.register_fake
def _fake(
    x: Tensor, num_clusters: int, k: int, mask: Tensor | None, parts: Tensor | None, backend: str, strict: bool
) -> tuple[Tensor, Tensor]:
    new = x.new_empty
    return new(x.shape[0], num_clusters, dtype=torch.int64), new(x.shape[0], x.shape[1], dtype=torch.int64)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _cluster_function(x: Tensor, backend: str, strict: bool) -> ClusterFunction:
    if backend == "native" and x.dtype == torch.float32:
        return backend_module("dpc_knn", "native").dpc_knn
    if backend == "triton" and x.dtype == torch.float32:
        triton = backend_module("dpc_knn", "triton")
        return lambda *arguments: triton.dpc_knn(*arguments, strict=strict)
    # Neither C++ nor Triton computes in float64.
    return backend_module("dpc_knn", "reference" if backend == "reference" else "torch").dpc_knn


def _check(x: Tensor, num_clusters: int, k: int, mask: Tensor | None, parts: Tensor | None) -> None:
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, N, C) with at least one token, but it is {tuple(x.shape)}")
    if not 1 <= num_clusters <= x.shape[1]:
        raise ValueError(f"num_clusters must be from 1 to the number of tokens {x.shape[1]}, but it is {num_clusters}")
    if k < 1:
        raise ValueError(f"k must be at least 1, but it is {k}")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"mask must be {tuple(x.shape[:2])} bool, but it is {tuple(mask.shape)} {mask.dtype}")
    if parts is not None and (parts.shape != x.shape[1:2] or parts.dtype != torch.int64):
        raise ValueError(f"parts must be ({x.shape[1]},) int64, but it is {tuple(parts.shape)} {parts.dtype}")

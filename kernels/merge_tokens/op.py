"""Merging tokens: the public function and the operator behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.backend import (
    backend_module,
    choose_backend,
    refuse_second_derivative,
    traceable_backend,
    without_autocast,
)
from kernels.constants import EPSILON
from kernels.segments import row_dots, segment_sum, segment_total, sort_by_row


def merge_tokens(
    x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """Average the tokens of each cluster, weighted by exp(log_weight).

    Args:
        x: (B, N, C) token features, any floating dtype.
        log_weight: (B, N, 1) logarithm of each token's weight; -inf for padding, whose features must be finite.
        assign: (B, N) int64, cluster of each token in [0, num_clusters).
        num_clusters: M.
        backend: one of `kernels.backend.BACKENDS`; by default the value of the environment variable TCFORMER_KERNELS,
            else the fastest one for the device.

    Returns:
        merged: (B, M, C), `sum(e^w x) / (sum(e^w) + 1e-6)`, dtype of `x`; 0 for a cluster without tokens.
        normalised: (B, N, 1), `e^w / (sum(e^w) + 1e-6)` of each token in its cluster, float32 (float64 for float64
            weights). Both are differentiable in `x` and `log_weight`.

    Raises:
        ValueError: the shapes do not match, or on a CPU a cluster is out of range.

    Source: TCFormer (Zeng et al., CVPR 2022), equation 4, in the arithmetic of its released code.
    """
    if x.ndim != 3 or log_weight.shape != (*x.shape[:2], 1) or assign.shape != x.shape[:2]:
        raise ValueError(
            "expected x (B, N, C), log_weight (B, N, 1) and assign (B, N), but they are "
            f"{tuple(x.shape)}, {tuple(log_weight.shape)} and {tuple(assign.shape)}"
        )
    if log_weight.dtype != torch.float64:
        log_weight = log_weight.float()
    with without_autocast(x.device):
        if traceable := traceable_backend(backend):
            return backend_module("merge_tokens", traceable).merge_tokens(x, log_weight, assign, num_clusters)
        merged, normalised, _, _ = torch.ops.tcformer.merge_tokens(x, log_weight, assign, num_clusters, backend or "")
    return merged, normalised


@torch.library.custom_op("tcformer::merge_tokens", mutates_args=())
def _merge(
    x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merged tokens, normalised weights, tokens sorted by cluster (B * N,), offsets of the clusters (B * M + 1,)."""
    name, batch = choose_backend(backend, x.device), x.shape[0]
    order, offsets = sort_by_row(assign, num_clusters, name)
    weight = log_weight.exp().flatten()  # (B * N,)
    total = segment_total(weight[order], offsets, name) + EPSILON  # (B * M,)
    normalised = weight / total[_flat_clusters(assign, num_clusters)]
    merged = segment_sum(x.flatten(0, 1), order, offsets, normalised[order], name)  # (B * M, C)
    return merged.view(batch, num_clusters, -1), normalised.view_as(log_weight), order, offsets


@_merge.register_fake
def _(
    x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, n, channels = x.shape
    return (
        x.new_empty(batch, num_clusters, channels),
        log_weight.new_empty(batch, n, 1),
        assign.new_empty(batch * n),
        assign.new_empty(batch * num_clusters + 1),
    )


@torch.library.custom_op("tcformer::merge_tokens_backward", mutates_args=())
def _merge_backward(
    grad_merged: Tensor,
    grad_normalised: Tensor | None,
    x: Tensor,
    assign: Tensor,
    normalised: Tensor,
    order: Tensor,
    offsets: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and log_weight."""
    name = choose_backend(backend, x.device)
    cluster = _flat_clusters(assign, grad_merged.shape[1])  # (B * N,)
    share = normalised.flatten()
    gathered = grad_merged.flatten(0, 1)[cluster]  # (B * N, C)
    grad_x = (gathered * share[:, None]).to(x.dtype).view_as(x)
    token = torch.arange(len(cluster), device=x.device)
    grad_share = row_dots(x.flatten(0, 1), token, gathered, token, name).to(share.dtype)  # (B * N,)
    if grad_normalised is not None:
        grad_share = grad_share + grad_normalised.flatten()
    common = segment_total((share * grad_share)[order], offsets, name)  # (B * M,)
    return grad_x, (share * (grad_share - common[cluster])).view_as(normalised)


@_merge_backward.register_fake
def _(
    grad_merged: Tensor, grad_normalised: Tensor | None, x: Tensor, assign: Tensor, normalised: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(normalised)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, assign, _, ctx.backend = inputs
    _, normalised, order, offsets = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(order, offsets)
    ctx.save_for_backward(x, assign, normalised, order, offsets)
    ctx.shape = output[0].shape


def _gradient(
    ctx: Any, grad_merged: Tensor | None, grad_normalised: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    if grad_merged is None:
        grad_merged = ctx.saved_tensors[0].new_zeros(ctx.shape)
    grads = torch.ops.tcformer.merge_tokens_backward(
        grad_merged.contiguous(), grad_normalised, *ctx.saved_tensors, ctx.backend
    )
    return *grads, None, None, None


_merge_backward.register_autograd(refuse_second_derivative)
_merge.register_autograd(_gradient, setup_context=_context)


def _flat_clusters(assign: Tensor, num_clusters: int) -> Tensor:
    """Cluster of each token (B * N,), numbered across the batch, from clusters (B, N) numbered within each image."""
    return (assign + torch.arange(len(assign), device=assign.device)[:, None] * num_clusters).flatten()

"""Merging tokens: the public function."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import choose_backend, implementation


def _plain(backend: str) -> str:
    return backend if backend == "reference" else "torch"


def merge_tokens(
    x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """Average the tokens of each cluster, weighted by exp(log_weight).

    Args:
        x: (B, N, C) token features, any floating dtype.
        log_weight: (B, N, 1) logarithm of each token's weight.
        assign: (B, N) int64, cluster of each token in [0, num_clusters).
        num_clusters: M.
        backend: "reference" or "cpu"; by default what the environment variable TCFORMER_KERNELS says, else
            "cpu".

    Returns:
        merged: (B, M, C), `sum(e^w x) / (sum(e^w) + 1e-6)`, dtype of `x`; 0 for a cluster without tokens.
        normalised: (B, N, 1), `e^w / (sum(e^w) + 1e-6)` of each token in its cluster, float32 (float64 for
            float64 weights). Both are differentiable in `x` and `log_weight`.

    Raises:
        ValueError: the shapes do not fit each other.

    Source: TCFormer (Zeng et al., CVPR 2022), equation 4, in the arithmetic of its released code.
    """
    if x.ndim != 3 or log_weight.shape != (*x.shape[:2], 1) or assign.shape != x.shape[:2]:
        raise ValueError(
            "expected x (B, N, C), log_weight (B, N, 1) and assign (B, N), but they are "
            f"{tuple(x.shape)}, {tuple(log_weight.shape)} and {tuple(assign.shape)}"
        )
    if log_weight.dtype != torch.float64:
        log_weight = log_weight.float()
    with torch.autocast(x.device.type, enabled=False):
        return implementation("merge_tokens", _plain(choose_backend(backend, x.device))).merge_tokens(
            x, log_weight, assign, num_clusters
        )

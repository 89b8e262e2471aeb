"""Merging as a product with a matrix of shares, in standard operators, for export."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.segments.portable_backend import entry_shares, weight_matrix


def merge_tokens(x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """See `kernels.merge_tokens`."""
    share = entry_shares(assign, log_weight.exp()[:, :, 0], num_clusters)  # (B, N)
    token = torch.arange(x.shape[1], device=x.device).expand_as(assign)
    merged = weight_matrix(assign, token, share, num_clusters, x.shape[1]) @ x.to(share.dtype)  # (B, M, C)
    return merged.to(x.dtype), share[:, :, None]

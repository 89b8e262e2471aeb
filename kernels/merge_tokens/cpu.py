"""Merging as a segmented weighted sum, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.segments import Pairing, Rows, segment_sum, segment_total


def merge_tokens(x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """See `kernels.merge_tokens`."""
    batch, tokens, _ = x.shape
    first = torch.arange(batch, device=x.device)[:, None] * num_clusters
    by_cluster = Rows.build((assign + first).flatten(), batch * num_clusters)  # numbered through the batch
    by_token = Rows.one_each(batch * tokens, x.device)

    weight = log_weight.exp().flatten()  # (B * N,)
    total = segment_total(weight, by_cluster) + EPSILON  # (B * M,)
    normalised = weight / segment_sum(total[:, None], Pairing(by_cluster, by_token))[:, 0]  # (B * N,)
    rows = x.flatten(0, 1).to(weight.dtype)  # (B * N, C)
    merged = segment_sum(rows, Pairing(by_token, by_cluster), normalised)  # (B * M, C)
    return merged.unflatten(0, (batch, num_clusters)).to(x.dtype), normalised.view(batch, tokens, 1)

"""Merging as a product with a membership matrix: the specification."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import one_hot

from kernels.constants import EPSILON


def merge_tokens(x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """See `kernels.merge_tokens`."""
    weight = log_weight.exp()  # (B, N, 1)
    member = one_hot(assign, num_clusters).to(weight.dtype)  # (B, N, M)
    total = member.mT @ weight + EPSILON  # (B, M, 1)
    normalised = weight / (member @ total)  # (B, N, 1)
    merged = member.mT @ (normalised * x)  # (B, M, C)
    return merged.to(x.dtype), normalised

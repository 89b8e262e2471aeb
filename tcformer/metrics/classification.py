"""Top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of the correct class: the number of classes with a higher logit, or an equal one and a lower index.

    Args:
        logits: (B, classes).
        labels: (B,) int64.

    Returns:
        (B,) int64; the prediction is correct in top-1 if it is 0, in top-5 if it is below 5. A row that contains a NaN
        gets the last rank.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    return torch.where(logits.isnan().any(1), logits.shape[1] - 1, rank)


def accuracy(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute top-1 and top-5 accuracy.

    Args:
        predictions: one mapping an image, with its `index` and the `rank` of its label (see `rank_of_label`). An image
            that occurs twice, because shards were padded, counts once.

    Returns:
        {"top1": ..., "top5": ..., "count": number of images}, the accuracies in [0, 1].

    Raises:
        ValueError: there are no predictions.
    """
    ranks = torch.tensor(list({item["index"]: item["rank"] for item in predictions}.values()))
    if not len(ranks):
        raise ValueError("no predictions")
    top1, top5 = ((ranks < k).double().mean().item() for k in (1, 5))
    return {"top1": top1, "top5": top5, "count": len(ranks)}

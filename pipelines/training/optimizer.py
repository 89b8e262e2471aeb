"""The optimiser: AdamW, which parameters decay, and their learning rates."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from pipelines.params import Optimizer
from tcformer.models import Network, layer_depths


def build_optimizer(model: Network, optimizer: Optimizer) -> torch.optim.AdamW:
    """PyTorch's AdamW over the model's trainable parameters."""
    return torch.optim.AdamW(parameter_groups(model, optimizer), lr=optimizer.lr, betas=(0.9, 0.999), fused=True)


def parameter_groups(model: Network, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Trainable parameters with their weight decay and learning rate.

    With `decay_norms_and_biases: false` only matrices decay. With `layer_decay` the learning rate of a parameter is
    `lr * layer_decay ** distance`. The distance is 0 for neck and head, 1 for the last block of the backbone, and so on
    to the patch embedding (see `tcformer.models.layer_depths`). Source: BEiT (Bao et al., 2022), timm.

    Returns:
        AdamW's groups, those with the highest learning rate first. Each has one learning rate and one weight decay.
    """
    depths = {} if optimizer.layer_decay is None else layer_depths(model)
    last = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = parameter.ndim <= 1 and not optimizer.decay_norms_and_biases
            groups[last - depths.get(name, last), free].append(parameter)
    return [
        {
            "params": groups[distance, free],
            "weight_decay": 0.0 if free else optimizer.weight_decay,
            "lr": optimizer.lr * (optimizer.layer_decay or 1.0) ** distance,
        }
        for distance, free in sorted(groups)
    ]

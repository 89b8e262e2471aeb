"""The optimiser: AdamW, and which parameters decay."""

from typing import Any

import torch
from torch import nn

from pipelines.params import Optimizer


def build_optimizer(model: nn.Module, optimizer: Optimizer) -> torch.optim.AdamW:
    """PyTorch's AdamW over the model's trainable parameters."""
    return torch.optim.AdamW(parameter_groups(model, optimizer), lr=optimizer.lr, betas=(0.9, 0.999), fused=True)


def parameter_groups(model: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Trainable parameters with their weight decay; with `decay_norms_and_biases: false` only matrices decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim > 1
            (decayed if matrix or optimizer.decay_norms_and_biases else free).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": optimizer.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]

"""Tokens and their positions in the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tcformer.models.ops import TokenPlan

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of a batch of images at one stage of the network.

    Attributes:
        features: (B, N, C).
        cell_weight: (B, N_init) weight of each cell of the initial grid in its token. It is 1 at first, and each
            merging multiplies it by the share of the cell's token in its cluster. float32, or float64 for float64
            features.
        plan: which cells belong to each token, for a map of the size of this stage.
    """

    features: Tensor
    cell_weight: Tensor
    plan: TokenPlan

    @classmethod
    def of_grid(cls, features: Tensor, grid_size: Size) -> Tokens:
        """Make tokens with features (B, H0 * W0, C) that are the cells of the initial grid."""
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        cell_weight = torch.ones(features.shape[:2], dtype=dtype, device=features.device)
        return cls(features, cell_weight, TokenPlan.of_grid(features.shape[0], grid_size, features.device))

    def with_features(self, features: Tensor) -> Tokens:
        """The same tokens with other features (B, N, any C)."""
        return replace(self, features=features)

    @property
    def token_of_cell(self) -> Tensor:
        """(B, N_init) int64: the token in [0, N) of each cell of the initial grid, row by row."""
        return self.plan.token_of_cell

    @property
    def map_size(self) -> Size:
        """(H, W) of the feature map of this stage."""
        return self.plan.map_size

    @property
    def grid_size(self) -> Size:
        """(H0, W0) of the initial grid, N_init = H0 * W0."""
        return self.plan.grid_size

"""Token reduction between stages to a quarter of the tokens: by clustering (CTM), or on a grid."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tcformer.models.layers import TokenConv
from tcformer.models.ops import TokenPlan, dpc_knn, map2token, merge_tokens, token2map, without_autocast
from tcformer.models.tokens import Tokens


class Reduced(NamedTuple):
    """The input of a stage.

    Attributes:
        tokens: the merged tokens.
        source: the tokens before merging, with their new features, which the first block of the stage attends to; None
            if it attends to the merged tokens.
        log_weight: (B, N, 1) importance p of each source token. Its weight in the merging is e^p.
    """

    tokens: Tokens
    source: Tokens | None
    log_weight: Tensor | None


class CTM(nn.Module):
    """Clustering-based Token Merge: widen the tokens, cluster them, and average each cluster by learned importance.

    Args:
        in_width: channels before.
        out_width: channels after.
        parts: tokens are clustered within each of parts x parts parts of the image; 1 clusters the whole image.
        by_importance: clusters form around the most important tokens instead of density peaks (CTM-topk, table A3 of
            the paper).

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.2, with the arithmetic of the released code; section 6 for
    `parts`.
    """

    def __init__(self, in_width: int, out_width: int, parts: int = 1, by_importance: bool = False) -> None:
        super().__init__()
        self.conv = TokenConv(in_width, out_width, stride=2)
        self.norm = nn.LayerNorm(out_width, eps=1e-5)
        self.score = nn.Linear(out_width, 1)
        self.parts = parts
        self.by_importance = by_importance

    def forward(self, tokens: Tokens) -> Reduced:
        """Merge N tokens to ceil(N / 4). The sides of their map are halved, rounded up."""
        x = self.norm(self.conv(tokens.features, tokens.plan))  # (B, N, C_out)
        log_weight = self.score(x)  # (B, N, 1)
        num_clusters = ceil(x.shape[1] / 4)  # M
        if self.by_importance:
            assign = nearest_important(x, log_weight[:, :, 0], num_clusters)  # (B, N)
        elif self.parts > 1:
            _, assign = dpc_knn(x, num_clusters, parts=part_of_token(tokens, self.parts))
        else:
            _, assign = dpc_knn(x, num_clusters)
        merged, share = merge_tokens(x, log_weight, assign, num_clusters)  # (B, M, C_out), (B, N, 1)

        token_of_cell = tokens.token_of_cell  # (B, N_init)
        plan = TokenPlan.build(assign.gather(1, token_of_cell), num_clusters, tokens.grid_size, halved(tokens.map_size))
        # Constants, as in the released code. Their gradient would be of the order of the 1e-6 in the normalisers.
        cell_weight = tokens.cell_weight * share[:, :, 0].detach().gather(1, token_of_cell)  # (B, N_init)
        return Reduced(Tokens(merged, cell_weight, plan), tokens.with_features(x), log_weight)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"parts={self.parts}, by_importance={self.by_importance}"


class GridReduction(nn.Module):
    """A strided convolution instead of clustering: the tokens stay a regular grid ("without CTM" in the paper).

    Args:
        in_width: channels before.
        out_width: channels after.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_width, eps=1e-5)

    def forward(self, tokens: Tokens) -> Reduced:
        """Reduce the tokens of a grid to those of a grid with half its sides, rounded up."""
        m = self.conv(token2map(tokens.features, tokens.plan))  # (B, C_out, H / 2, W / 2)
        size = (m.shape[2], m.shape[3])
        x = map2token(m, TokenPlan.of_grid(m.shape[0], size, m.device))  # (B, M, C_out)
        return Reduced(Tokens.of_grid(self.norm(x), size), None, None)


def make_reduction(in_width: int, out_width: int, token_reduction: str, parts: int) -> CTM | GridReduction:
    """Make the module between two stages for one of `TOKEN_REDUCTIONS`. Only local_ctm uses `parts`."""
    if token_reduction == "conv":
        return GridReduction(in_width, out_width)
    parts = parts if token_reduction == "local_ctm" else 1
    return CTM(in_width, out_width, parts, by_importance=token_reduction == "ctm_topk")


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """The sides of a map after a convolution of stride 2."""
    return ceil(size[0] / 2), ceil(size[1] / 2)


def part_of_token(tokens: Tokens, parts: int) -> Tensor:
    """Part of the image of each token, (N,) int64, of parts x parts parts counted row by row.

    Each token must lie within a part, as after clustering within the same or smaller parts. Then it is in the same part
    in every image of the batch.
    """
    (rows, columns), device = tokens.grid_size, tokens.features.device
    row = torch.arange(rows, device=device) * parts // rows
    column = torch.arange(columns, device=device) * parts // columns
    part_of_cell = (row[:, None] * parts + column).flatten()  # (N_init,)
    part = torch.empty(tokens.features.shape[1], dtype=torch.int64, device=device)
    return part.scatter_(0, tokens.token_of_cell[0], part_of_cell)


@torch.no_grad()
def nearest_important(x: Tensor, importance: Tensor, num_clusters: int) -> Tensor:
    """Clusters around the tokens of highest importance.

    Args:
        x: (B, N, C) token features. The computation is in float32 or float64.
        importance: (B, N).
        num_clusters: M.

    Returns:
        (B, N) int64, the cluster of each token: that of the nearest centre (the first of equally near ones), and for a
        centre its own. Clusters are numbered in the order of their centres.

    Source: TCFormer, supplementary material, table A3.
    """
    with without_autocast(x.device):
        x = (x if x.dtype == torch.float64 else x.float()) - x[:, :1]
        first = importance.sort(dim=1, descending=True, stable=True)[1][:, :num_clusters]
        centres = first.sort(dim=1)[0]  # (B, M)
        centre = x.gather(1, centres[:, :, None].expand(-1, -1, x.shape[2]))  # (B, M, C)
        distance = torch.baddbmm(centre.square().sum(2)[:, None], x, centre.mT, alpha=-2)  # (B, N, M), shifted
        assign = distance.argmin(2)
        own = torch.arange(num_clusters, device=x.device).expand_as(centres)
        return assign.scatter_(1, centres, own)

"""Token reduction between stages to a quarter of the tokens: by clustering (CTM), or on a grid."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tcformer.models.layers import TokenConv
from tcformer.models.ops import TokenPlan, dpc_knn, map2token, merge_tokens, token2map, without_autocast
from tcformer.models.options import ReductionOptions
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
        options: how clusters form.
        parts: tokens are clustered within each of parts x parts parts of the image; 1 clusters the whole image.

    Attributes:
        on_grid: whether the clusters are blocks of 2x2 tokens (ctm_grid, and the first part of a training with
            `cluster_after`). The tokens before must then form a grid, so it is the same in all CTMs of a network.

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.2, with the arithmetic of the released code; section 6 for
    `parts`. The grid and the places are ours.
    """

    def __init__(self, in_width: int, out_width: int, options: ReductionOptions, parts: int = 1) -> None:
        super().__init__()
        self.conv = TokenConv(in_width, out_width, stride=2)
        self.norm = nn.LayerNorm(out_width, eps=1e-5)
        self.score = nn.Linear(out_width, 1)
        self.place = nn.Linear(4, out_width) if options.token_place else None
        self.options = options
        self.parts = parts
        self.on_grid = options.token_reduction == "ctm_grid"

    def forward(self, tokens: Tokens) -> Reduced:
        """Merge N tokens to ceil(N / 4), or on a grid to one for each 2x2 block. Halves the map, sides rounded up."""
        x = self.norm(self.conv(tokens.features, tokens.plan))  # (B, N, C_out)
        log_weight = self.score(x)  # (B, N, 1)
        assign, num_clusters = self.cluster(x, log_weight, tokens)  # (B, N), M
        merged, share = merge_tokens(x, log_weight, assign, num_clusters)  # (B, M, C_out), (B, N, 1)

        token_of_cell = tokens.token_of_cell  # (B, N_init)
        plan = TokenPlan.build(assign.gather(1, token_of_cell), num_clusters, tokens.grid_size, halved(tokens.map_size))
        if self.place is not None:
            merged = merged + self.place(token_places(plan, tokens.cell_weight.dtype).to(merged.dtype))
        # Constants, as in the released code. Their gradient would be of the order of the 1e-6 in the normalisers.
        cell_weight = tokens.cell_weight * share[:, :, 0].detach().gather(1, token_of_cell)  # (B, N_init)
        return Reduced(Tokens(merged, cell_weight, plan), tokens.with_features(x), log_weight)

    def cluster(self, x: Tensor, log_weight: Tensor, tokens: Tokens) -> tuple[Tensor, int]:
        """Decide which tokens to merge.

        Args:
            x: (B, N, C_out) features.
            log_weight: (B, N, 1) importance.
            tokens: the N tokens before merging.

        Returns:
            (B, N) int64, the cluster of each token, and the number of clusters M.
        """
        if self.on_grid:
            return grid_blocks(tokens)
        num_clusters = ceil(x.shape[1] / 4)
        if self.options.place_weight:
            x = with_place(x, tokens, num_clusters, self.options.place_weight)
        if self.options.token_reduction == "ctm_topk":
            return nearest_important(x, log_weight[:, :, 0], num_clusters), num_clusters
        parts = part_of_token(tokens, self.parts) if self.parts > 1 else None
        return dpc_knn(x, num_clusters, parts=parts)[1], num_clusters

    def set_progress(self, share: float) -> None:
        """Use the grid in the first part of a training; see `ReductionOptions.cluster_after`."""
        self.on_grid = self.options.token_reduction == "ctm_grid" or share < self.options.cluster_after

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"parts={self.parts}, {self.options}"


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


def make_reduction(in_width: int, out_width: int, options: ReductionOptions, parts: int) -> CTM | GridReduction:
    """Make the module between two stages. Only local_ctm uses `parts`."""
    if options.token_reduction == "conv":
        return GridReduction(in_width, out_width)
    return CTM(in_width, out_width, options, parts if options.token_reduction == "local_ctm" else 1)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """The sides of a map after a convolution of stride 2."""
    return ceil(size[0] / 2), ceil(size[1] / 2)


def grid_blocks(tokens: Tokens) -> tuple[Tensor, int]:
    """Clusters of the tokens of a grid: its blocks of 2x2, row by row; at the end of an odd side, of fewer.

    Returns:
        (B, N) int64, the cluster of each token, and the number of clusters.
    """
    (rows, columns), (block_rows, block_columns) = tokens.map_size, halved(tokens.map_size)
    device = tokens.features.device
    row, column = torch.arange(rows, device=device) // 2, torch.arange(columns, device=device) // 2
    block = (row[:, None] * block_columns + column).flatten()  # (N,)
    return block.expand(tokens.features.shape[0], -1), block_rows * block_columns


@torch.no_grad()
def token_places(plan: TokenPlan, dtype: torch.dtype) -> Tensor:
    """Where the tokens are in the image, and how far they extend.

    Returns:
        (B, N, 4) of `dtype`: mean row and column of the cells of each token, from the centre of the image, and their
        standard deviations. The unit is half the longer side of the image.
    """
    (rows, columns), device = plan.grid_size, plan.token_of_cell.device
    row, column = (torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2 for n in (rows, columns))
    cell = torch.cartesian_prod(row, column) * (2 / max(rows, columns))  # (N_init, 2)
    moments = torch.cat([cell, cell.square()], 1).expand(plan.batch, -1, -1)
    equal = torch.zeros(plan.batch, rows * columns, 1, dtype=dtype, device=device)
    mean, square = merge_tokens(moments, equal, plan.token_of_cell, plan.num_tokens)[0].split(2, 2)  # (B, N, 2) each
    return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], 2)


@torch.no_grad()
def with_place(x: Tensor, tokens: Tokens, num_clusters: int, weight: float) -> Tensor:
    """Extend features by the place of the token, so that clustering compares both.

    The squared distance of two tokens becomes |x_i - x_j|^2 / C + weight * |p_i - p_j|^2, where p are the centres of
    the tokens in the side of an average cluster, sqrt(N_init / M) cells. Superpixels (SLIC: Achanta et al., TPAMI 2012)
    combine colour and place in the same way.

    Args:
        x: (B, N, C) features. The computation is in float32 or float64.
        tokens: the N tokens.
        num_clusters: M.
        weight: of the place.

    Returns:
        (B, N, C + 2), whose squared distances divided by C + 2 are those.
    """
    x = x if x.dtype == torch.float64 else x.float()
    channels, (rows, columns) = x.shape[2], tokens.grid_size
    side = (rows * columns / num_clusters) ** 0.5
    place = token_places(tokens.plan, x.dtype)[:, :, :2] * (max(rows, columns) / 2 / side)
    return torch.cat([x, place * (weight * channels) ** 0.5], 2) * ((channels + 2) / channels) ** 0.5


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

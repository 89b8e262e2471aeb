"""Multi-stage Token Aggregation (MTA): from the tokens of the four stages to one fine feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tcformer.models.block import Attention, Block, Mlp
from tcformer.models.layers import TokenConv
from tcformer.models.ops import map2token, token2map, upsample_tokens
from tcformer.models.tokens import Tokens
from tcformer.models.variants import Variant


class TokenProjection(nn.Module):
    """1x1 convolution of tokens."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Project tokens (B, N, C_in) to (B, N, C_out)."""
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias)


class MTA(nn.Module):
    """From coarse to fine: copy the tokens of a stage to the finer tokens they were merged from, add, and transform.

    Args:
        variant: sizes.
        reduce_by_clusters: reduce keys and values by merging the tokens of each level along the clusters, down to those
            of the last stage, instead of pooling the map of the tokens. Weights are those of the CTMs. The number of
            keys is about the same. All stages must have the same grid (not token_reduction conv).

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.4, with the arithmetic of the released code. Reduction along
    clusters is the idea of the neck CR-MTA of TCFormerV2 (Zeng et al., TPAMI 2024). Its formulas and code were not
    available to us: this is our form.
    """

    def __init__(self, variant: Variant, reduce_by_clusters: bool = False) -> None:
        super().__init__()
        self.reduce_by_clusters = reduce_by_clusters
        width, hidden = variant.neck_width, variant.neck_width * variant.neck_mlp_ratio
        self.lateral_convs = nn.ModuleList(TokenProjection(w, width) for w in variant.widths)
        self.merge_blocks = nn.ModuleList(
            Block(
                Attention(width, variant.neck_heads, 1 if reduce_by_clusters else reduction, learned_reduction=False),
                Mlp(width, hidden, TokenConv(hidden, hidden, depth_wise=True)),
                eps=1e-5,
            )
            for reduction in variant.reductions[:-1]
        )

    def forward(self, stages: list[Tokens]) -> Tensor:
        """Aggregate the tokens of the four stages to a map (B, neck_width, H / 4, W / 4)."""
        levels = [
            tokens.with_features(project(tokens.features))
            for tokens, project in zip(stages, self.lateral_convs, strict=True)
        ]
        coarse = levels[-1]
        for fine, block in zip(levels[-2::-1], reversed(self.merge_blocks), strict=True):
            fine = fine.with_features(fine.features + _copy_to_finer(coarse, fine))
            coarse = block(fine, _merge_to_coarsest(fine, stages[-1]) if self.reduce_by_clusters else None)
        return token2map(coarse.features, coarse.plan)


def _merge_to_coarsest(fine: Tokens, last: Tokens) -> Tokens:
    """The tokens of the last stage, with the mean of the fine tokens that were merged into each, weighted as there."""
    return last.with_features(upsample_tokens(fine.features, fine.plan, last.plan, last.cell_weight))


def _copy_to_finer(coarse: Tokens, fine: Tokens) -> Tensor:
    """The features (B, N_fine, C) of the coarse token that each fine token was merged into."""
    if coarse.grid_size == fine.grid_size:
        return upsample_tokens(coarse.features, coarse.plan, fine.plan, fine.cell_weight)
    # Without clustering, each stage has its own grid.
    m = F.interpolate(token2map(coarse.features, coarse.plan), fine.grid_size, mode="nearest")
    return map2token(m, fine.plan)

"""Clustering Token Merge (CTM): a quarter of the tokens, placed where the image needs them."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from tcformer.models.layers import TokenConv
from tcformer.models.ops import TokenPlan, dpc_knn, merge_tokens
from tcformer.models.tokens import Tokens


class CTM(nn.Module):
    """Widen the tokens, cluster them, and average each cluster by learned importance.

    Args:
        in_width, out_width: channels before and after.

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.2, in the arithmetic of its released code.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = TokenConv(in_width, out_width, stride=2)
        self.norm = nn.LayerNorm(out_width, eps=1e-5)
        self.score = nn.Linear(out_width, 1)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens, Tensor]:
        """Merge tokens.

        Returns:
            merged: max(ceil(N / 4), 1) tokens; its map is half as large (rounded up).
            unmerged: the N tokens with their new features; the merged ones attend to these.
            log_weight: (B, N, 1) importance p of each unmerged token; its weight in the merging is e^p.
        """
        x = self.norm(self.conv(tokens.features, tokens.plan))  # (B, N, C_out)
        log_weight = self.score(x)  # (B, N, 1)
        num_clusters = ceil(x.shape[1] / 4)  # M
        _, assign = dpc_knn(x, num_clusters)  # (B, N)
        merged, share = merge_tokens(x, log_weight, assign, num_clusters)  # (B, M, C_out), (B, N, 1)

        token_of_cell = tokens.token_of_cell  # (B, N_init)
        height, width = tokens.map_size
        plan = TokenPlan.build(
            assign.gather(1, token_of_cell),
            num_clusters,
            tokens.grid_size,
            (ceil(height / 2), ceil(width / 2)),
        )
        # Constants, as in the released code; their gradient would be of the order of the 1e-6 in normalisers.
        cell_weight = tokens.cell_weight * share[:, :, 0].detach().gather(1, token_of_cell)  # (B, N_init)
        return Tokens(merged, cell_weight, plan), tokens.with_features(x), log_weight

"""The transformer block, used by every stage and by the MTA neck."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tcformer.models.layers import DropPath, has_hooks
from tcformer.models.ops import TokenPlan, attention, token2map
from tcformer.models.tokens import Tokens


class Attention(nn.Module):
    """Multi-head attention with spatial reduction of keys and values, on a map of the queries' size.

    Args:
        width: channels C.
        num_heads: number of heads, of C / num_heads channels each.
        reduction: r; keys and values are the (H // r) * (W // r) pixels of a reduced map. With 1 they are the tokens.
        learned_reduction: reduce by a convolution of kernel size and stride r and a LayerNorm; else by the mean.
    """

    def __init__(self, width: int, num_heads: int, reduction: int, learned_reduction: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr: nn.Module | None = None
        if reduction > 1 and learned_reduction:
            self.sr = nn.Conv2d(width, width, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor, source: Tensor, source_plan: TokenPlan, log_weight: Tensor | None) -> Tensor:
        """Attend from `x` to `source`.

        Args:
            x: (B, N, C) queries.
            source: (B, Ns, C) tokens for keys and values.
            source_plan: plan of `source` on a map of the queries' size.
            log_weight: (B, Ns, 1) added to the attention logits of each source token, or None.

        Returns:
            (B, N, C).
        """
        if self.reduction > 1:
            source = self._reduce(token2map(source, source_plan))  # (B, Nk, C)
            if log_weight is not None:
                weight_map = F.avg_pool2d(token2map(log_weight, source_plan), self.reduction)  # (B, 1, h, w)
                log_weight = weight_map.flatten(2).mT  # (B, Nk, 1)
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)
        kv = self.kv(source).unflatten(2, (2, self.num_heads, -1))  # (B, Nk, 2, heads, C / heads)
        k, v = kv.permute(2, 0, 3, 1, 4)  # (B, heads, Nk, C / heads) each
        bias = None if log_weight is None else log_weight[:, :, 0]  # (B, Nk)
        x = attention(q, k, v, bias)  # (B, heads, N, C / heads)
        return self.proj(x.transpose(1, 2).flatten(2))

    def _reduce(self, m: Tensor) -> Tensor:
        """Reduce a map (B, C, H, W) to (B, Nk, C)."""
        if self.sr is None:
            return F.avg_pool2d(m, self.reduction).permute(0, 2, 3, 1).flatten(1, 2)
        return self.norm(self.sr(m).permute(0, 2, 3, 1).flatten(1, 2))


class Mlp(nn.Module):
    """Two linear layers with a depth-wise convolution and GELU between them."""

    def __init__(self, width: int, hidden: int, dwconv: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = dwconv
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, plan: TokenPlan) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        hidden = self.fc1(x)
        # No one else has the new tensor that a linear layer returns, if no hook has it.
        unseen = type(self.fc1) is nn.Linear and not has_hooks(self.fc1, self.dwconv)
        return self.fc2(self.dwconv(hidden, plan, gelu=True, overwrite=unseen))


class Block(nn.Module):
    """Pre-norm attention and MLP with residual connections. The convolution in `mlp` mixes neighbouring tokens."""

    def __init__(self, attn: Attention, mlp: Mlp, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        width = attn.q.in_features
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tokens, source: Tokens | None = None, log_weight: Tensor | None = None) -> Tokens:
        """Transform tokens.

        Args:
            tokens: N queries.
            source: tokens that the queries attend to; the queries themselves if None.
            log_weight: (B, Ns, 1) added to the attention logits of the source tokens, or None.
        """
        x = tokens.features  # (B, N, C)
        queries = self.norm1(x)
        if source is None:
            keys, keys_plan = queries, tokens.plan
        else:
            # Only spatial reduction needs the map.
            keys_plan = source.plan.at(tokens.map_size) if self.attn.reduction > 1 else source.plan
            keys = self.norm1(source.features)
        x = x + self.drop_path(self.attn(queries, keys, keys_plan, log_weight))
        x = x + self.drop_path(self.mlp(self.norm2(x), tokens.plan))
        return tokens.with_features(x)

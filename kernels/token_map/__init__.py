"""Conversion between tokens and feature maps."""

from kernels.token_map.op import map2token, token2map, upsample_tokens
from kernels.token_map.plan import TokenPlan

__all__ = ["TokenPlan", "map2token", "token2map", "upsample_tokens"]

"""Attention with a bias per key."""

from kernels.attention.op import attention

__all__ = ["attention"]

"""Plain formulations of the token operations, to which the benchmarks compare the operations of `kernels`.

They are written straight from the equations: all distances, memberships as matrices, scattered sums.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


def dpc_knn(x: Tensor, num_clusters: int, k: int = 5) -> tuple[Tensor, Tensor]:
    """Centres (B, M) and the cluster of each token (B, N), from all distances (B, N, N); ties are in no fixed order.

    Source: TCFormer (Zeng et al., CVPR 2022), equations 1 to 3.
    """
    distance = torch.cdist(x, x) / x.shape[2] ** 0.5  # (B, N, N)
    near = distance.topk(k, largest=False)[0]
    density = (-near.square().mean(2)).exp()  # (B, N)
    denser = density[:, None, :] > density[:, :, None]
    farthest = distance.flatten(1).amax(1)[:, None, None]
    delta = torch.where(denser, distance, farthest).amin(2)  # (B, N)
    centres = (density * delta).topk(num_clusters)[1].sort()[0]  # (B, M)
    to_centres = distance.gather(2, centres[:, None, :].expand(-1, x.shape[1], -1))  # (B, N, M)
    own = torch.arange(num_clusters, device=x.device).expand_as(centres)
    return centres, to_centres.argmin(2).scatter(1, centres, own)


def merge_tokens(x: Tensor, log_weight: Tensor, assign: Tensor, num_clusters: int) -> Tensor:
    """Weighted means (B, M, C) of the tokens of each cluster, by a membership matrix (equation 4)."""
    weight = log_weight.exp()
    member = F.one_hot(assign, num_clusters).to(x.dtype)  # (B, N, M)
    share = weight / (member @ (member.mT @ weight + EPSILON))
    return member.mT @ (share * x)


def token2map(x: Tensor, token_of_cell: Tensor, pixel_of_cell: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) as a map (B, C, H, W): each pixel is the mean over its cells of their tokens."""
    batch, _, channels = x.shape
    cells = x.gather(1, token_of_cell[:, :, None].expand(-1, -1, channels))  # (B, N_init, C)
    count = x.new_zeros(map_size[0] * map_size[1]).index_add(0, pixel_of_cell, torch.ones_like(cells[0, :, 0]))
    m = x.new_zeros(batch, len(count), channels).index_add(1, pixel_of_cell, cells)
    return (m / (count + EPSILON)[:, None]).mT.unflatten(2, map_size)


def map2token(m: Tensor, token_of_cell: Tensor, pixel_of_cell: Tensor, num_tokens: int) -> Tensor:
    """A map (B, C, H, W) as tokens (B, N, C): each token is the mean over its cells of their pixels."""
    cells = m.flatten(2).mT[:, pixel_of_cell]  # (B, N_init, C)
    ones = torch.ones_like(cells[:, :, :1])
    count = m.new_zeros(len(m), num_tokens, 1).scatter_add(1, token_of_cell[:, :, None], ones)
    index = token_of_cell[:, :, None].expand_as(cells)
    return m.new_zeros(len(m), num_tokens, m.shape[1]).scatter_add(1, index, cells) / (count + EPSILON)


def token_conv(
    x: Tensor,
    token_of_cell: Tensor,
    pixel_of_cell: Tensor,
    map_size: tuple[int, int],
    weight: Tensor,
    bias: Tensor,
    skip: Tensor,
) -> Tensor:
    """GELU of skip * x + map2token(conv(token2map(x)))."""
    m = token2map(x, token_of_cell, pixel_of_cell, map_size)
    m = F.conv2d(m, weight, bias, padding=1, groups=x.shape[2])
    return F.gelu(map2token(m, token_of_cell, pixel_of_cell, x.shape[1]) + skip * x)


def attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + key_bias) v, step by step (equation 5)."""
    logits = q @ k.mT / q.shape[3] ** 0.5 + key_bias[:, None, None, :]
    return logits.softmax(3) @ v

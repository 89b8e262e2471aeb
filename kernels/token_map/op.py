"""Token maps: the public functions."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import choose_backend, implementation
from kernels.token_map.plan import TokenPlan


def _plain(backend: str) -> str:
    return backend if backend == "reference" else "torch"


def token2map(x: Tensor, plan: TokenPlan, *, backend: str | None = None) -> Tensor:
    """Draw tokens on a feature map.

    A pixel is the mean, over the grid cells that fall in it, of the features of the tokens those cells belong
    to (divided by count + 1e-6). Tokens that still are the grid are reshaped if the map has the grid's size.

    Args:
        x: (B, N, C) token features, any floating dtype.
        plan: the tokens' plan at the map's size.
        backend: "reference" or "cpu"; by default what the environment variable TCFORMER_KERNELS says, else
            "cpu".

    Returns:
        (B, C, H, W) map, same dtype.

    Raises:
        ValueError: `x` does not fit the plan.

    Source: TCFormer (Zeng et al., CVPR 2022), section 3.3, in the arithmetic of its released code.
    """
    if x.ndim != 3 or x.shape[:2] != (plan.batch, plan.num_tokens):
        raise ValueError(f"x must be (B={plan.batch}, N={plan.num_tokens}, C), but it is {tuple(x.shape)}")
    return implementation("token_map", _plain(choose_backend(backend, x.device))).token2map(x, plan)


def map2token(m: Tensor, plan: TokenPlan, *, backend: str | None = None) -> Tensor:
    """Read tokens off a feature map.

    A token is the mean, over its grid cells, of the map pixel each falls in (divided by count + 1e-6); a
    token without cells is 0. Tokens that still are the grid are reshaped if the map has the grid's size.

    Args:
        m: (B, C, H, W) feature map, any floating dtype.
        plan: the tokens' plan at the map's size.
        backend: see `token2map`.

    Returns:
        (B, N, C) token features, same dtype.

    Raises:
        ValueError: `m` does not fit the plan.
    """
    if m.ndim != 4 or m.shape[0] != plan.batch or tuple(m.shape[2:]) != plan.map_size:
        (h, w) = plan.map_size
        raise ValueError(f"m must be (B={plan.batch}, C, H={h}, W={w}), but it is {tuple(m.shape)}")
    return implementation("token_map", _plain(choose_backend(backend, m.device))).map2token(m, plan)


def upsample_tokens(
    x: Tensor, coarse: TokenPlan, fine: TokenPlan, cell_weight: Tensor, *, backend: str | None = None
) -> Tensor:
    """Copy coarse tokens to the finer tokens they were merged from.

    A fine token is the weighted mean, over its grid cells, of the coarse token each cell belongs to (divided
    by the sum of weights + 1e-6).

    Args:
        x: (B, N_coarse, C) features of the coarse tokens, any floating dtype.
        coarse, fine: plans of the two token sets over the same grid; their map sizes do not matter.
        cell_weight: (B, N_init) weight of each grid cell in its FINE token.
        backend: see `token2map`.

    Returns:
        (B, N_fine, C), dtype of `x`.

    Raises:
        ValueError: the shapes do not fit the plans, or the plans have different grids.
    """
    if x.ndim != 3 or x.shape[:2] != (coarse.batch, coarse.num_tokens):
        raise ValueError(f"x must be (B={coarse.batch}, N={coarse.num_tokens}, C), but it is {tuple(x.shape)}")
    if coarse.grid_size != fine.grid_size or coarse.batch != fine.batch:
        raise ValueError("the coarse and the fine tokens must come from the same batch and grid")
    if cell_weight.shape != fine.token_of_cell.shape:
        raise ValueError(f"cell_weight must be {tuple(fine.token_of_cell.shape)}, but it is {tuple(cell_weight.shape)}")
    return implementation("token_map", _plain(choose_backend(backend, x.device))).upsample_tokens(
        x, coarse, fine, cell_weight
    )

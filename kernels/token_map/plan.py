"""How the tokens of a set correspond to the pixels of a map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kernels.constants import EPSILON
from kernels.segments import Pairing, Rows

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """Correspondence between tokens and map pixels through the cells of the initial grid.

    Every cell of the initial grid belongs to one token, and falls in one pixel of the map: cell row `r` of
    `H0` in pixel row `r * H // H0` of `H`, columns likewise. Sizes need not divide each other. What the
    operations need beyond that is computed at the first use and then kept, so build a plan once per token set
    and pass it on.

    Attributes:
        token_of_cell: (B, N_init) int64, the token in [0, num_tokens) of each grid cell, row by row.
        num_tokens: N.
        grid_size: (H0, W0) with H0 * W0 = N_init.
        map_size: (H, W), each at most the grid's.
        is_grid: the tokens still are the grid's cells, in order.
    """

    token_of_cell: Tensor
    num_tokens: int
    grid_size: Size
    map_size: Size
    is_grid: bool = False

    @classmethod
    def build(cls, token_of_cell: Tensor, num_tokens: int, grid_size: Size, map_size: Size) -> TokenPlan:
        """Plan for arbitrary tokens.

        Raises:
            ValueError: `token_of_cell` has not one entry per grid cell, or the map is finer than the grid.
        """
        (h0, w0), (h, w) = grid_size, map_size
        if token_of_cell.ndim != 2 or token_of_cell.shape[1] != h0 * w0:
            raise ValueError(
                f"token_of_cell must be (B, {h0 * w0}) for a grid of {h0}x{w0}, but it is {tuple(token_of_cell.shape)}"
            )
        if not (1 <= h <= h0 and 1 <= w <= w0):
            raise ValueError(f"a map of {h}x{w} pixels does not fit a grid of {h0}x{w0} cells")
        return cls(token_of_cell, num_tokens, (h0, w0), (h, w))

    @classmethod
    def of_grid(cls, batch: int, grid_size: Size, device: torch.device | str | None = None) -> TokenPlan:
        """Plan for tokens that are the grid's cells themselves, on a map of the grid's size."""
        num_tokens = grid_size[0] * grid_size[1]
        cells = torch.arange(num_tokens, device=device).expand(batch, num_tokens)
        return cls(cells, num_tokens, grid_size, grid_size, is_grid=True)

    def at(self, map_size: Size) -> TokenPlan:
        """The same tokens on a map of another size. Sorting the cells by token is not repeated."""
        if map_size == self.map_size:
            return self
        plan = TokenPlan(self.token_of_cell, self.num_tokens, self.grid_size, map_size, self.is_grid)
        if not self.is_grid:
            # Fills the new plan's cached property; for a grid the sorted cells are seldom needed.
            plan.__dict__["cells_by_token"] = self.cells_by_token
        return plan

    @property
    def is_reshape(self) -> bool:
        """Tokens and map are the same numbers: the tokens still are the grid, and the map has its size."""
        return self.is_grid and self.map_size == self.grid_size

    @property
    def batch(self) -> int:
        """B."""
        return self.token_of_cell.shape[0]

    @property
    def num_pixels(self) -> int:
        """H * W of the map."""
        return self.map_size[0] * self.map_size[1]

    @cached_property
    def pixel_of_cell(self) -> Tensor:
        """(N_init,) int64: the map pixel in which each grid cell falls, the same for all images."""
        (h0, w0), (h, w) = self.grid_size, self.map_size
        device = self.token_of_cell.device
        row = torch.arange(h0, device=device) * h // h0
        column = torch.arange(w0, device=device) * w // w0
        return (row[:, None] * w + column).flatten()

    @cached_property
    def cells_by_token(self) -> Rows:
        """The batch's cells (B * N_init) sorted by token; tokens are numbered through the batch."""
        if self.is_grid:
            return Rows.one_each(self.batch * self.num_tokens, self.token_of_cell.device)
        return Rows.build(self._through_batch(self.token_of_cell, self.num_tokens), self.batch * self.num_tokens)

    @cached_property
    def cells_by_pixel(self) -> Rows:
        """The batch's cells (B * N_init) sorted by pixel; pixels are numbered through the batch."""
        pixels = self._through_batch(self.pixel_of_cell, self.num_pixels)
        return Rows.build(pixels, self.batch * self.num_pixels)

    def _through_batch(self, index: Tensor, count: int) -> Tensor:
        first = torch.arange(self.batch, device=index.device)[:, None] * count
        return (index + first).flatten()

    @cached_property
    def tokens_to_pixels(self) -> Pairing:
        """The cells as links from tokens to pixels."""
        return Pairing(self.cells_by_token, self.cells_by_pixel)

    @cached_property
    def pixels_to_tokens(self) -> Pairing:
        """The cells as links from pixels to tokens."""
        return Pairing(self.cells_by_pixel, self.cells_by_token)

    @cached_property
    def pixel_factor(self) -> Tensor:
        """(B, HW, 1) float64: what the sum over a pixel's cells is multiplied with to give their mean."""
        cells = self.cells_by_pixel.counts.view(self.batch, -1, 1)
        return 1 / (cells.double() + EPSILON)

    @cached_property
    def token_factor(self) -> Tensor:
        """(B, N, 1) float64: what the sum over a token's cells is multiplied with to give their mean."""
        cells = self.cells_by_token.counts.view(self.batch, -1, 1)
        return 1 / (cells.double() + EPSILON)

    @cached_property
    def mean_matrices(self) -> tuple[Tensor, Tensor]:
        """(B, HW, N) and (B, N, HW) float64: their products with tokens and with pixels are the means."""
        pair = self.cells_by_pixel.row_of_cell * self.num_tokens + self.token_of_cell.flatten()  # (B * N_init,)
        count = self.batch * self.num_pixels * self.num_tokens
        cells = torch.bincount(pair, minlength=count).view(self.batch, self.num_pixels, -1).double()
        return cells * self.pixel_factor, cells.mT * self.token_factor

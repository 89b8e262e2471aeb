"""How tokens correspond to the pixels of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import backend_module, choose_backend
from kernels.constants import EPSILON
from kernels.segments import sort_by_row

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs of a row (a token or a pixel) and another row (a pixel or a token) that share cells, sorted by the first.

    Rows are numbered across the batch. All cells that link the same two rows are one entry.

    Attributes:
        index: (B * N_init,) int64, the other row of each entry; unused entries at the end are 0.
        offsets: (rows + 1,) int64, the position where the entries of each row begin, and the end.
        mean_weight: (B * N_init,) float64, cells of an entry / (cells of its row + 1e-6): the weights of a row's mean.
        backward_weight: (B * N_init,) float64, cells of an entry / (cells of its other row + 1e-6): the weights of the
            derivative of the other rows' means.
    """

    index: Tensor
    offsets: Tensor
    mean_weight: Tensor
    backward_weight: Tensor


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """Correspondence between tokens and map pixels through the cells of the initial grid.

    Every cell of the initial grid belongs to one token and lies in one pixel of the map: cell row `r` of `H0` lies in
    pixel row `r * H // H0` of `H`, and columns likewise. Sizes need not divide each other. The plan sorts everything
    that the operations need when it is created, so create one plan per token set and map size and reuse it.

    Attributes:
        token_of_cell: (B, N_init) int64, the token in [0, num_tokens) of each grid cell, row by row.
        num_tokens: N.
        grid_size: (H0, W0) with H0 * W0 = N_init.
        map_size: (H, W), each at most the grid's.
        is_grid: whether the tokens still are the grid cells, in order.
        token_cells: (B * N_init,) int64, the cells of the first image's token 0, token 1, ..., then those of the next
            image; numbered within each image and ascending within a token.
        token_offsets: (B * N + 1,) int64, the position in `token_cells` where each token begins, and the end.
        pixel_of_cell: (N_init,) int64, the map pixel in which each cell lies, the same for all images.
        pixel_cells: (N_init,) int64, the cells of pixel 0, pixel 1, ..., the same for all images.
        pixel_offsets: (H * W + 1,) int64, the position in `pixel_cells` where each pixel begins, and the end.
        by_token: pairs of tokens and pixels that share cells, sorted by token; None if the tokens are the grid cells
            and the map size divides the grid's, because no operation needs the pairs then.
        by_pixel: the same, sorted by pixel.
    """

    token_of_cell: Tensor
    num_tokens: int
    grid_size: Size
    map_size: Size
    is_grid: bool
    token_cells: Tensor
    token_offsets: Tensor
    pixel_of_cell: Tensor
    pixel_cells: Tensor
    pixel_offsets: Tensor
    by_token: Links | None
    by_pixel: Links | None

    @classmethod
    def build(cls, token_of_cell: Tensor, num_tokens: int, grid_size: Size, map_size: Size) -> TokenPlan:
        """Plan for arbitrary tokens; see the attributes of the class.

        Raises:
            ValueError: `token_of_cell` does not have one entry per grid cell, the map is finer than the grid, or on a
                CPU a token is out of range.
        """
        (h0, w0) = grid_size
        if token_of_cell.ndim != 2 or token_of_cell.shape[1] != h0 * w0:
            raise ValueError(
                f"token_of_cell must be (B, {h0 * w0}) for a grid of {h0}x{w0}, but it is {tuple(token_of_cell.shape)}"
            )
        cells, offsets = _sort_cells(token_of_cell, num_tokens)
        return cls._make(token_of_cell, num_tokens, (h0, w0), map_size, False, cells, offsets)

    @classmethod
    def of_grid(cls, batch: int, grid_size: Size, device: torch.device | str | None = None) -> TokenPlan:
        """Plan for tokens that are the grid cells themselves, on a map of the grid's size."""
        num_tokens = grid_size[0] * grid_size[1]
        cells = torch.arange(num_tokens, device=device).expand(batch, num_tokens)
        offsets = torch.arange(batch * num_tokens + 1, device=device)
        return cls._make(cells, num_tokens, grid_size, grid_size, True, cells.flatten(), offsets)

    def at(self, map_size: Size) -> TokenPlan:
        """Plan for the same tokens on a map of another size. Reuses the order of the cells by token."""
        if map_size == self.map_size:
            return self
        return self._make(
            self.token_of_cell,
            self.num_tokens,
            self.grid_size,
            map_size,
            self.is_grid,
            self.token_cells,
            self.token_offsets,
        )

    @classmethod
    def _make(
        cls,
        token_of_cell: Tensor,
        num_tokens: int,
        grid_size: Size,
        map_size: Size,
        is_grid: bool,
        token_cells: Tensor,
        token_offsets: Tensor,
    ) -> TokenPlan:
        (h0, w0), (h, w) = grid_size, map_size
        if not (1 <= h <= h0 and 1 <= w <= w0):
            raise ValueError(f"map_size must be from 1x1 to the grid size {h0}x{w0}, but it is {h}x{w}")
        pixel_of_cell = _pixel_of_cell(grid_size, map_size, token_of_cell.device)
        if is_grid and map_size == grid_size:
            pixel_cells, pixel_offsets = pixel_of_cell, torch.arange(h * w + 1, device=token_of_cell.device)
        else:
            pixel_cells, pixel_offsets = _sort_cells(pixel_of_cell[None], h * w)
        by_token = by_pixel = None
        if not (is_grid and h0 % h == 0 and w0 % w == 0):
            pixels = pixel_of_cell.expand_as(token_of_cell)
            by_token = Links(*_link_rows(token_of_cell, pixels, num_tokens, h * w))
            by_pixel = Links(*_link_rows(pixels, token_of_cell, h * w, num_tokens))
        return cls(
            token_of_cell,
            num_tokens,
            grid_size,
            map_size,
            is_grid,
            token_cells,
            token_offsets,
            pixel_of_cell,
            pixel_cells,
            pixel_offsets,
            by_token,
            by_pixel,
        )

    @property
    def is_reshape(self) -> bool:
        """Whether the map is a reshape of the tokens: they are the grid cells, and the map has the grid's size."""
        return self.is_grid and self.map_size == self.grid_size

    @property
    def batch(self) -> int:
        """B."""
        return self.token_of_cell.shape[0]

    @property
    def num_pixels(self) -> int:
        """H * W of the map."""
        return self.map_size[0] * self.map_size[1]


def _pixel_of_cell(grid_size: Size, map_size: Size, device: torch.device) -> Tensor:
    (h0, w0), (h, w) = grid_size, map_size
    row = torch.arange(h0, device=device) * h // h0
    column = torch.arange(w0, device=device) * w // w0
    return (row[:, None] * w + column).flatten()


@torch.library.custom_op("tcformer::sort_cells", mutates_args=())
def _sort_cells(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Cells (B * n,), numbered within their image and sorted by their row (B, n), and the offsets of the rows."""
    order, offsets = sort_by_row(row, num_rows, choose_backend(None, row.device))
    # Subtracting each image's first cell is faster than computing remainders.
    first = torch.arange(row.shape[0], device=row.device)[:, None] * row.shape[1]
    return (order.view(row.shape) - first).flatten(), offsets


@_sort_cells.register_fake
def _(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    return row.new_empty(row.numel()), row.new_empty(row.shape[0] * num_rows + 1)


@torch.library.custom_op("tcformer::link_rows", mutates_args=())
def _link_rows(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The attributes of `Links` for cells that link the rows `row` (B, n) with the rows `other` (B, n)."""
    if choose_backend(None, row.device) == "native":
        native = backend_module("token_map", "native")
        return native.link_rows(row.contiguous(), other.contiguous(), num_rows, num_others)
    batch, n = row.shape
    image = torch.arange(batch, device=row.device)[:, None]
    pair = (image * num_rows + row) * num_others + other  # (B, n), images in ascending order
    pair = pair.sort(1)[0].flatten()  # (B * n,)
    cell = torch.arange(batch * n + 1, device=row.device)
    is_first = torch.ones_like(pair, dtype=torch.bool)
    torch.ne(pair[1:], pair[:-1], out=is_first[1:])
    entry = is_first.cumsum(0) - 1  # (B * n,) ascending: the entry of each cell
    distinct = torch.zeros_like(pair).scatter_(0, entry, pair)  # all cells of an entry write the same value
    cells = torch.searchsorted(entry, cell).diff()  # (B * n,) of each entry, 0 for unused ones

    first_cell = torch.searchsorted(pair // num_others, torch.arange(batch * num_rows + 1, device=row.device))
    offsets = torch.cat([entry, entry[-1:] + 1])[first_cell]
    entry_row = distinct // num_others
    entry_other = distinct - entry_row * num_others
    index = entry_row // num_rows * num_others + entry_other
    cells_of_other = torch.zeros(batch * num_others, dtype=torch.int64, device=row.device)
    cells_of_other.scatter_add_(0, (image * num_others + other).flatten(), torch.ones_like(pair))
    mean_weight = cells / (first_cell.diff().double() + EPSILON)[entry_row]
    backward_weight = cells / (cells_of_other.double() + EPSILON)[index]
    return index, offsets, mean_weight, backward_weight


@_link_rows.register_fake
def _(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    entries = row.new_empty(row.numel())
    weights = row.new_empty(row.numel(), dtype=torch.float64)
    return entries, row.new_empty(row.shape[0] * num_rows + 1), weights, torch.empty_like(weights)

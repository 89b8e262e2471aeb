"""Numbers and missing values as the report writes them."""

from __future__ import annotations

from tcformer.tables import Cell

NOT_RUN = "not run"


def cell_text(cell: Cell, digits: int) -> str:
    """A table's cell: integers with thousands separators, floats with `digits` decimals, "not run" for None.

    Floats that would show only zeros get two significant digits.
    """
    if cell is None:
        return NOT_RUN
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell and abs(cell) < 0.5 * 10**-digits:
        return f"{cell:.2g}"
    return f"{cell:.{digits}f}"


def short_text(value: float) -> str:
    """A number in few characters: 12k, 1.5M, 0.003, 2e-5."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    if value and size < 1e-4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def ratio_text(value: float) -> str:
    """A ratio with one decimal; with two below 2, and with two significant digits below 0.095."""
    if value >= 2:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.2g}"

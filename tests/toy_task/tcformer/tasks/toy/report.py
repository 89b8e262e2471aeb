"""The toy task in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcformer.tables import Headline, Table

TITLE = "Discs"
DRAWN = "the disc"


def headlines(metrics: Mapping[str, Any] | None) -> list[Headline]:
    """The rows of the summary."""
    found = metrics or {}
    baseline = found.get("baseline", {}).get("error")
    return [Headline("discs", "mean error in pixels", found.get("error"), "mean point", baseline)]


def tables(metrics: Mapping[str, Any] | None) -> list[Table]:
    """All measures."""
    rows = () if metrics is None else (("all", metrics["error"], metrics["found"]),)
    return [Table("Discs", ("set", "error", "found"), rows)]

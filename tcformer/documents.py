"""Generated parts of documents, between two marks."""

from __future__ import annotations

from tcformer.errors import UserError


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` in place of what stands between the first `begin` and the next `end`, which both stay.

    Raises:
        UserError: one of the marks is missing.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise UserError(f"the document has no place for the table: expected the marks {begin} and {end}; add both")
    return f"{before}{begin}{content}{end}{after}"

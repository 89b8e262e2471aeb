"""Generated parts of documents stand between two marks; everything else stays."""

from __future__ import annotations

import pytest

from tcformer.documents import replace_between
from tcformer.errors import UserError

PAGE = "a\n<!-- one -->old<!-- end -->\nb\n<!-- two -->\nold\n<!-- end -->\nc\n"


def test_only_the_text_between_the_marks_changes() -> None:
    first = replace_between(PAGE, begin="<!-- one -->", end="<!-- end -->", content="new")
    assert first == PAGE.replace("-->old<", "-->new<")
    second = replace_between(first, begin="<!-- two -->", end="<!-- end -->", content="\\1\n")
    assert second == "a\n<!-- one -->new<!-- end -->\nb\n<!-- two -->\\1\n<!-- end -->\nc\n"
    assert replace_between(second, begin="<!-- two -->", end="<!-- end -->", content="\\1\n") == second


@pytest.mark.parametrize("page", ["", "<!-- one -->", "<!-- end --><!-- one -->"])
def test_missing_marks_are_an_error(page: str) -> None:
    with pytest.raises(UserError, match="expected the marks <!-- one --> and <!-- end -->"):
        replace_between(page, begin="<!-- one -->", end="<!-- end -->", content="new")

"""docs/reliability.md names tests that exist, and has all cases."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
MARKS = {"slow", "pipeline", "long"}


@cache
def marks_of(path: str) -> dict[str, set[str]]:
    """The tests of a file, and their marks by name."""
    found: dict[str, set[str]] = {}
    common: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            common = MARKS & set(re.findall(r"\w+", ast.unparse(node.value)))
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            text = " ".join(map(ast.unparse, node.decorator_list))
            found[node.name] = common | {mark for mark in MARKS if f"pytest.mark.{mark}" in text}
    return found


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/]+\.py", PAGE))))
def test_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"tests/[\w/]+\.py::\w+(?: \(\w+\))?", PAGE))))
def test_tests_exist_and_run_when_the_table_says(named: str) -> None:
    test, _, mark = named.removesuffix(")").partition(" (")
    path, _, name = test.partition("::")
    marks = marks_of(path)
    assert name in marks
    assert mark == next((mark for mark in ("long", "pipeline", "slow") if mark in marks[name]), "")


def test_the_table_has_every_case() -> None:
    cases = [row for row in ROWS if row[0].isdigit()]
    assert [int(row[0]) for row in cases] == list(range(1, 28))
    for row in cases:
        assert len(row) == 5 and "::" in row[3] and row[4], row

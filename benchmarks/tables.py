"""Put what was measured into the pages that show it: `python -m benchmarks.tables`, after the other benchmarks.

Between `<!-- results: NAME -->` and `<!-- end of results -->` comes a table of each results/NAME-<device>.csv.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from benchmarks.measure import RESULTS
from tcformer.documents import replace_between

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "kernels/README.md", ROOT / "docs/data.md")
_BEGIN, _END = "<!-- results: {} -->", "<!-- end of results -->"
# The same in all rows, so they are said once, above the table.
_ABOUT = ("device", "date", "torch")


def main() -> None:
    """Rewrite the pages' tables."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(_BEGIN.format(r"(\S+)"), text):
            text = replace_between(text, _BEGIN.format(name), _END, f"\n{tables(name)}")
        page.write_text(text, encoding="utf-8")


def tables(name: str) -> str:
    """Markdown tables of all devices' results of a benchmark, or a sentence that there are none."""
    found = [table(path) for path in sorted(RESULTS.glob(f"{name}-*.csv"))]
    return "\n".join(found) or "Not run.\n"


def table(path: Path) -> str:
    """Markdown table of one file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [column for column in rows[0] if column not in _ABOUT]
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    about = f"{rows[0]['device']}, torch {rows[0]['torch']}, {rows[0]['date']}"
    return f"{about}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()

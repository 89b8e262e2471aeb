"""Write the measured figures into the documents that show them; run it after the other benchmarks.

    python -m benchmarks.tables

Between `<!-- results: NAME -->` and `<!-- end of results -->` it writes a table of each results/NAME-<device>.csv.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from benchmarks.measure import RESULTS
from tcformer.documents import replace_between

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "kernels/README.md", ROOT / "docs/data.md", ROOT / "docs/predict.md")
_BEGIN, _END = "<!-- results: {} -->", "<!-- end of results -->"
# Columns with the same value in all rows, which is written once above the table.
_ABOUT = ("device", "date", "torch")


def main() -> None:
    """Rewrite the tables of all documents."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(_BEGIN.format(r"(\S+)"), text):
            text = replace_between(text, _BEGIN.format(name), _END, f"\n{tables(name)}")
        page.write_text(text, encoding="utf-8")


def tables(name: str) -> str:
    """Markdown tables of a benchmark's results, one per device, or "Not run."."""
    found = [table(path) for path in sorted(RESULTS.glob(f"{name}-*.csv"))]
    return "\n".join(found) or "Not run.\n"


def table(path: Path) -> str:
    """Markdown table of one results file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [column for column in rows[0] if column not in _ABOUT]
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    about = f"{rows[0]['device']}, torch {rows[0]['torch']}, {rows[0]['date']}"
    return f"{about}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()

"""The results of the sample recipe in README.md."""

from __future__ import annotations

from pathlib import Path

from pipelines.layout import ROOT, Layout
from pipelines.report.content import results_section
from pipelines.report.markdown import table_to_markdown
from pipelines.reproduction.measures import RECIPE, read_metrics
from tcformer.documents import replace_between
from tcformer.errors import UserError
from tcformer.tables import Table

PAGE = ROOT / "README.md"

_BEGIN, _END = "<!-- results: python -m stages.experiments results -->", "<!-- end of results -->"


def results_table(layout: Layout) -> Table:
    """The first table of the report.

    Raises:
        UserError: a task was not evaluated.
    """
    metrics = read_metrics(layout)
    if missing := [task for task, found in metrics.items() if found is None]:
        path = layout.run("evaluate", missing[0]) / "metrics.json"
        raise UserError(f"{path} does not exist: run `make repro` first")
    table = results_section(metrics).parts[0]
    assert isinstance(table, Table)
    return table


def with_results(page: str, layout: Layout) -> str:
    """The page with a newly written table of results.

    Raises:
        UserError: a task was not evaluated, or the page has no marks for the table.
    """
    return replace_between(page, _BEGIN, _END, f"\n\n{table_to_markdown(results_table(layout))}\n\n")


def document(layout: Layout | None = None, page: Path = PAGE) -> None:
    """Rewrite the table in the page, by default with the results of the sample recipe in this repository."""
    text = with_results(page.read_text(encoding="utf-8"), layout or Layout(RECIPE))
    page.write_text(text, encoding="utf-8")

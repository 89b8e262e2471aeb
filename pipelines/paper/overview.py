"""The list of all experiments, and its place in docs/experiments.md."""

from __future__ import annotations

from pipelines.paper.experiments import load_experiments
from pipelines.provenance import ROOT
from pipelines.report.markdown import table_to_markdown
from tcformer.documents import replace_between
from tcformer.tables import Table

DOCUMENT = ROOT / "docs/experiments.md"

_BEGIN, _END = "<!-- table: python -m stages.experiments document -->", "<!-- end of table -->"


def overview_table() -> Table:
    """All experiments; those that differ only in the seed share a row."""
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for experiment in load_experiments().values():
        name = experiment.name if experiment.seed is None else f"{experiment.unseeded_name}-seed0, ..."
        row = (experiment.description, ", ".join(experiment.tables), ", ".join(experiment.stages))
        rows.setdefault(row, (name, *row))
    return Table("Experiments", ("name", "what", "tables", "stages"), tuple(rows.values()), align="llll")


def with_overview(page: str) -> str:
    """The page with a newly written list of experiments.

    Raises:
        UserError: the page has no marks for the list.
    """
    return replace_between(page, _BEGIN, _END, f"\n\n{table_to_markdown(overview_table())}\n\n")

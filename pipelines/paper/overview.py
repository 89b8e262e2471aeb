"""The list of all experiments, and its place in docs/experiments.md."""

from __future__ import annotations

from pipelines.layout import ROOT
from pipelines.paper.experiments import load_experiments
from pipelines.paper.figures import FIGURES
from pipelines.report.markdown import table_to_markdown
from tcformer.documents import replace_between
from tcformer.tables import Table

DOCUMENT = ROOT / "docs/experiments.md"

_BEGIN, _END = "<!-- table: python -m stages.experiments document -->", "<!-- end of table -->"
_BEGIN_FIGURES, _END_FIGURES = "<!-- figures: python -m stages.experiments document -->", "<!-- end of figures -->"


def overview_table() -> Table:
    """All experiments; those that differ only in the seed share a row."""
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for experiment in load_experiments().values():
        name = experiment.name if experiment.seed is None else f"{experiment.unseeded_name}-seed0, ..."
        row = (experiment.description, ", ".join(experiment.tables), ", ".join(experiment.stages))
        rows.setdefault(row, (name, *row))
    return Table("Experiments", ("name", "what", "tables and figures", "stages"), tuple(rows.values()), align="llll")


def figures_table() -> Table:
    """All figures that are pictures."""
    experiments = load_experiments()
    rows = []
    for name, figure in FIGURES.items():
        drawn_by = "stages.experiments figure"
        if figure.kind == "stage":
            drawn_by = f"visualize@{experiments[figure.experiments[0]].task}"
        rows.append((name, figure.shows, ", ".join(figure.experiments), drawn_by))
    return Table("Figures", ("name", "shows", "networks", "drawn by"), tuple(rows), align="llll")


def with_overview(page: str) -> str:
    """The page with newly written lists of experiments and figures.

    Raises:
        UserError: the page has no marks for a list.
    """
    page = replace_between(page, _BEGIN, _END, f"\n\n{table_to_markdown(overview_table())}\n\n")
    return replace_between(page, _BEGIN_FIGURES, _END_FIGURES, f"\n\n{table_to_markdown(figures_table())}\n\n")

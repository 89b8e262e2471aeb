"""Gather what the other stages measured and drew: runs/<recipe>/report/report.md and index.html."""

from pipelines.provenance import versions
from pipelines.report.content import gather
from pipelines.report.html import to_html
from pipelines.report.markdown import to_markdown
from pipelines.running.process import stage_main
from stages.common import begin


def main() -> None:
    """Run the stage."""
    start = begin(__doc__)
    report = gather(start.layout, start.params, versions())
    out = start.layout.run("report")
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(to_markdown(report), encoding="utf-8")
    (out / "index.html").write_text(to_html(report), encoding="utf-8")
    print(f"report: {out / 'index.html'}")


if __name__ == "__main__":
    stage_main(main)

"""Gather what the other stages measured and drew: runs/<recipe>/report/report.md and index.html."""

import json
from pathlib import Path
from typing import Any

from pipelines.layout import Layout
from pipelines.paper.comparison import Measured, paper_table, published
from pipelines.params import Params
from pipelines.process import stage_main
from pipelines.provenance import versions
from pipelines.report import (
    Curve,
    Metric,
    Picture,
    Section,
    Table,
    build_report,
    face_table,
    history_series,
    mapping_table,
    mesh_table,
    read_history,
    read_metrics,
    summary_table,
    wholebody_table,
)
from stages.common import FINETUNED, begin
from tcformer.tasks import TASKS


def main() -> None:
    """Run the stage."""
    _, params, layout = begin(__doc__, ())
    out = layout.run("report")
    out.mkdir(parents=True, exist_ok=True)
    markdown, page = build_report(sections(layout, params), f"TCFormer, recipe {params.recipe}")
    (out / "report.md").write_text(markdown, encoding="utf-8")
    (out / "index.html").write_text(page, encoding="utf-8")
    print(f"report: {out / 'index.html'}")


def sections(layout: Layout, params: Params) -> list[Section]:
    """What the report shows, from the files of ``layout``'s recipe, made with ``params``."""
    found = {task: read_metrics(layout.run("evaluate", task) / "metrics.json") for task in TASKS}
    classes, pose, face, mesh = (found[task] for task in ("imagenet", "wholebody", "face", "mesh"))
    test = next(iter(mesh)) if mesh else ""  # the first test set
    summary = summary_table(
        [
            _metric("classification", "top-1", classes, ("top1",), "chance"),
            _metric("whole-body pose", "body AP", pose, ("body", "AP"), "mean pose"),
            _metric("whole-body pose", "whole-body AP", pose, ("wholebody", "AP"), "mean pose"),
            _metric("whole-body pose", "mean OKS, 133 points", pose, ("oks",), "mean pose"),
            _metric("face landmarks", "NME (less is better)", face, ("full", "NME"), "mean shape"),
            _metric("body mesh", f"MPJPE in mm, {test} (less is better)", mesh, (test, "mpjpe"), "mean body"),
            _metric("body mesh", f"PA-MPJPE in mm, {test} (less is better)", mesh, (test, "pa_mpjpe"), "mean body"),
        ]
    )
    titles = {"wholebody": "Whole-body pose", "face": "Face landmarks", "mesh": "Body mesh"}
    curves = _curves(layout.run("pretrain"), "Classification")
    seen: list[Picture | Table] = []
    for task in FINETUNED:
        curves += _curves(layout.run("finetune", task), titles[task])
        cells = read_metrics(layout.run("visualize") / f"{task}.json")
        seen += _pictures(layout.run("visualize", task), titles[task])
        seen.append(mapping_table(f"{titles[task]}: grid cells a token covers", cells))
    provenance = [mapping_table("Data and trainings", _provenance(layout)), mapping_table("Versions", versions())]
    return [
        Section("Results", (summary, wholebody_table(pose), face_table(face), mesh_table(mesh))),
        Section("What the network sees", tuple(seen)),
        Section("Training", tuple(curves)),
        paper_section(found, params),
        Section("What determined these results", tuple(provenance), folded=True),
    ]


def paper_section(found: dict[str, dict[str, Any] | None], params: Params) -> Section:
    """The paper's tables, with what was measured here if the parameters are one of its experiments'."""
    metrics = {task: values for task, values in found.items() if values is not None}
    run = Measured("this run", "", json.loads(params.model_dump_json()), metrics)
    tables = tuple(paper_table(name, [run]) for name in published()["tables"])
    text = (
        "Beside the published figures stand this run's, where its parameters are those of one of the paper's "
        "experiments; python -m stages.experiments table gathers all that DVC holds."
    )
    if params.recipe != "paper":
        text = (
            f"The figures of the recipe {params.recipe} are those of generated people, not comparable with these; "
            "they stand under Results. What fills these tables is in docs/experiments.md."
        )
    return Section("The paper's tables", tables, text, folded=params.recipe != "paper")


def _metric(task: str, name: str, metrics: dict | None, keys: tuple[str, ...], baseline_name: str) -> Metric:
    return Metric(task, name, _at(metrics, keys), baseline_name, _at(metrics, ("baseline", *keys)))


def _at(tree: dict | None, keys: tuple[str, ...]) -> float | None:
    for key in keys:
        tree = None if tree is None else tree.get(key)
    return None if tree is None else float(tree)  # type: ignore[arg-type]


def _pictures(folder: Path, title: str) -> list[Picture]:
    last = "body" if folder.name == "mesh" else "points over the annotated ones in white"
    caption = (
        "From left: the crop; the tokens of stages 1 to 4, each filled with its mean colour; how many grid cells each "
        f"token of the last stage covers; the predicted {last}."
    )
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return [
        Picture(
            f"{title}: tokens and predictions", file.read_bytes(), caption, f"../visualize/{folder.name}/{file.name}"
        )
        for file in files
    ]


def _curves(folder: Path, title: str) -> list[Curve]:
    training, validation = read_history(folder / "training.csv"), read_history(folder / "validation.csv")
    lines = (history_series(training, "loss", "training"), history_series(validation, "val_loss", "validation"))
    return [Curve(f"{title}: loss", "step", "loss", lines)]


def _provenance(layout: Layout) -> dict[str, str]:
    found = {}
    for folder in (layout.run("pretrain"), *(layout.run("finetune", task) for task in FINETUNED)):
        path = folder / "provenance.json"
        if path.is_file():
            values = json.loads(path.read_text())
            found[f"{folder.name} training"] = values["training"]
            found[f"{folder.name} data sha256"] = values["data"]
    return found


if __name__ == "__main__":
    stage_main(main)

"""What the report shows, for whatever tasks there are: each task's own part is `tcformer/tasks/<task>/report.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from pipelines.layout import Layout
from pipelines.paper.comparison import MeasuredRun, paper_table, published
from pipelines.params import Params
from pipelines.report.measures import keypoints_section, part_bars, tokens_section
from pipelines.report.parts import Curve, Inspector, Part, Picture, Report, Section
from pipelines.report.read import history_series, read_history, read_json_object
from pipelines.report.tables import mapping_table, settings_table, sizes_table, summary_table
from tcformer.tables import Metrics
from tcformer.tasks import ALL_TASKS

_EXTREMES = (
    "The pictures with the best and the worst predictions among up to 256 of the validation set, by the measure of the "
    "training's validation, the worst last."
)


def gather(layout: Layout, params: Params, versions: Mapping[str, str]) -> Report:
    """The report of a recipe.

    Args:
        layout: of the recipe; files that its stages have not written yet show as "not run".
        params: with which the stages ran.
        versions: of Python and the packages.
    """
    tasks = params.active.tasks
    metrics, keypoints, tokens = (
        {task: read_json_object(layout.run("evaluate", task) / f"{name}.json") for task in tasks}
        for name in ("metrics", "keypoints", "tokens")
    )
    return Report(
        f"TCFormer, recipe {params.recipe}",
        (
            results_section(metrics),
            drawings_section(layout, tasks),
            inspector_section(layout, tasks),
            curves_section(layout, tasks),
            keypoints_section(keypoints),
            tokens_section(tokens),
            paper_section(metrics, params),
            Section("Settings", (settings_table(params),), folded=True),
            provenance_section(layout, versions, tasks),
        ),
    )


def results_section(metrics: Mapping[str, Metrics | None]) -> Section:
    """All headlines in one table, then each task's tables; `metrics` by task, None where it was not evaluated."""
    reports = [(ALL_TASKS[name].part("report"), found) for name, found in metrics.items()]
    summary = summary_table(headline for report, found in reports for headline in report.headlines(found))
    parts = [
        part
        for name, (report, found) in zip(metrics, reports)
        for part in (*report.tables(found), *part_bars(name, {"this network": found, "baseline": _baseline(found)}))
    ]
    text = "python -m stages.experiments compare --output compare.html shows several experiments side by side."
    return Section("Results", (summary, *parts), text)


def _baseline(metrics: Metrics | None) -> Metrics | None:
    return None if metrics is None else metrics.get("baseline")


def drawings_section(layout: Layout, tasks: Iterable[str]) -> Section:
    """For each task the drawn tokens and predictions, and the sizes of the tokens where they were measured."""
    parts: list[Part] = []
    for task in tasks:
        report, folder = ALL_TASKS[task].part("report"), layout.run("visualize", task)
        caption = (
            "From left: the crop; the tokens of stages 1 to 4, each filled with its mean colour; how many grid cells "
            f"each token of the last stage covers; {report.DRAWN}."
        )
        for name, title, text in (
            ("tokens.png", "tokens and predictions", caption),
            ("extremes.png", "best and worst", f"{_EXTREMES} {caption}"),
        ):
            if (folder / name).is_file():
                path = f"../visualize/{task}/{name}"
                parts.append(Picture(f"{report.TITLE}: {title}", (folder / name).read_bytes(), text, path))
        sizes = read_json_object(layout.run("visualize") / f"{task}.json")
        if sizes != {}:  # nobody has marked what an image to classify shows
            parts.append(sizes_table(report.TITLE, sizes))
    return Section("What the network sees", tuple(parts))


def inspector_section(layout: Layout, tasks: Iterable[str]) -> Section:
    """The drawn pictures, with their tokens to point at."""
    pictures = {}
    for task in tasks:
        found = read_json_object(layout.run("visualize", task) / "inspector.json")
        if found is not None:
            pictures[ALL_TASKS[task].part("report").TITLE] = found["pictures"]
    return Section("Tokens one by one", (Inspector("Token inspector", pictures),))


def curves_section(layout: Layout, tasks: Iterable[str]) -> Section:
    """The losses of each training over its steps."""
    curves = []
    for task in tasks:
        folder = layout.training(task)
        lines = (
            history_series(read_history(folder / "training.csv"), "loss", "training"),
            history_series(read_history(folder / "validation.csv"), "val_loss", "validation"),
        )
        curves.append(Curve(f"{ALL_TASKS[task].part('report').TITLE}: loss", "step", "loss", lines))
    return Section("Training", tuple(curves))


def paper_section(metrics: Mapping[str, Metrics | None], params: Params) -> Section:
    """The paper's tables, with this run's figures if its parameters are those of one of the paper's experiments."""
    measured = {task: values for task, values in metrics.items() if values is not None}
    tree = json.loads(params.model_dump_json())
    run = MeasuredRun(name="this run", commit_time="", params=tree, metrics=measured)
    tables = tuple(paper_table(name, [run]) for name in published()["tables"])
    if params.recipe == "paper":
        text = (
            "Beside the published figures stand this run's, where its parameters are those of one of the paper's "
            "experiments; python -m stages.experiments table gathers all that DVC holds."
        )
    else:
        text = (
            f"The figures of the recipe {params.recipe} are those of generated people, not comparable with these; "
            "they stand under Results. What fills these tables is in docs/experiments.md."
        )
    return Section("The paper's tables", tables, text, folded=params.recipe != "paper")


def provenance_section(layout: Layout, versions: Mapping[str, str], tasks: Iterable[str]) -> Section:
    """The fingerprint and the data of each training, and the versions of what ran it."""
    trainings = {}
    for task in tasks:
        folder = layout.training(task)
        provenance = read_json_object(folder / "provenance.json")
        if provenance is not None:
            trainings[f"{folder.name} training"] = provenance["training"]
            trainings[f"{folder.name} data sha256"] = provenance["data"]
    tables = (mapping_table("Data and trainings", trainings), mapping_table("Versions", versions))
    return Section("What determined these results", tables, folded=True)

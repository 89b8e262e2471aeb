"""The paper's experiments by name: queue them in DVC, compare published figures with ours, draw the paper's pictures.

python -m stages.experiments list
python -m stages.experiments queue table1 --start
python -m stages.experiments table table1
python -m stages.experiments compare wholebody-tcformer wholebody-without-ctm --output compare.html
python -m stages.experiments figure figureA1
python -m stages.experiments seeds run
python -m stages.experiments results
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.layout import PARAMS, ROOT
from pipelines.paper import dvc_experiments
from pipelines.paper.checks import check_data_roots, params_of
from pipelines.paper.comparison import comparison
from pipelines.paper.dvc_experiments import as_typed, queue_command
from pipelines.paper.experiments import (
    TABLES,
    Experiment,
    load_experiments,
    select,
    with_backbone,
    with_released_weights,
)
from pipelines.paper.figures import FIGURES
from pipelines.paper.overview import DOCUMENT, figures_table, overview_table, with_overview
from pipelines.paper.side_by_side import side_by_side
from pipelines.paper.sources import source_of
from pipelines.params import load_params
from pipelines.report.html import to_html
from pipelines.report.markdown import table_to_markdown, to_markdown
from pipelines.reproduction import record, results, seeds
from pipelines.running.process import stage_main
from pipelines.running.progress import say
from tcformer.errors import UserError
from tcformer.files import user_path


def main(given: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        given: the arguments; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stages.experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    names = f"tables ({', '.join(TABLES)}), figures ({', '.join(FIGURES)}) or experiments"

    command = commands.add_parser("list", help="show all experiments, with their tables and stages")
    command.set_defaults(run=list_all)

    command = commands.add_parser("show", help="show an experiment's parameters, their sources, and its DVC command")
    command.add_argument("names", nargs="+", metavar="NAME", help=names)
    command.set_defaults(run=show)

    command = commands.add_parser("queue", help="put experiments into DVC's queue")
    command.add_argument("names", nargs="+", metavar="NAME", help=names)
    command.add_argument("--start", action="store_true", help="then start the queue, which runs in the background")
    command.add_argument("--dry-run", action="store_true", help="print the commands and queue nothing")
    weights = command.add_mutually_exclusive_group()
    weights.add_argument("--released", type=Path, metavar="FILE", help="evaluate these weights; train nothing")
    weights.add_argument("--backbone", type=Path, metavar="FILE", help="fine-tune from these weights; pretrain nothing")
    command.set_defaults(run=queue)

    command = commands.add_parser("table", help="print published figures beside those measured here, in Markdown")
    command.add_argument("names", nargs="+", metavar="TABLE", choices=TABLES, help=", ".join(TABLES))
    command.add_argument("--output", type=user_path, metavar="FILE", help="write a file instead of printing")
    command.set_defaults(run=table)

    command = commands.add_parser("compare", help="put experiments side by side: results, settings, curves")
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="DVC's experiments, commits, or workspace; by default all with results"
    )
    command.add_argument(
        "--output", type=user_path, metavar="FILE", help="write .html, or else Markdown, instead of printing"
    )
    command.set_defaults(run=compare)

    command = commands.add_parser("figures", help="show the figures that are pictures, and how each is made")
    command.set_defaults(run=list_figures)

    command = commands.add_parser("figure", help="draw figures with trained networks: runs/<recipe>/figures/")
    command.add_argument("names", nargs="+", metavar="FIGURE", choices=tuple(FIGURES), help=", ".join(FIGURES))
    command.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="EXPERIMENT=FILE",
        help="weights that this project wrote, instead of those in the workspace or in DVC's experiments",
    )
    command.add_argument(
        "--recipe", choices=("sample", "paper"), help="whose networks and data; by default that of params.yaml"
    )
    command.add_argument(
        "--pick",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="draw these samples or pictures, counted from 0, instead of evenly spread ones",
    )
    command.set_defaults(run=figure)

    command = commands.add_parser("document", help=f"update the lists in {DOCUMENT.relative_to(ROOT)}")
    command.add_argument("--document", type=Path, default=DOCUMENT, help=argparse.SUPPRESS)
    command.set_defaults(run=document)

    command = commands.add_parser("seeds", help="the sample recipe with several seeds: how far its figures vary")
    steps = command.add_subparsers(required=True, metavar="STEP")
    step = steps.add_parser("run", help="train and evaluate with each seed, or continue; then update the tables")
    step.add_argument("--seeds", nargs="+", type=_seed, default=[0, 1, 2], metavar="N", help="0 1 2 by default")
    step.set_defaults(run=run_seeds)
    step = steps.add_parser("document", help="update the tables in README.md and docs/experiments.md")
    step.set_defaults(run=document_seeds)

    command = commands.add_parser("results", help="update the sample recipe's results in README.md")
    command.set_defaults(run=document_results)

    arguments = parser.parse_args(given)
    arguments.run(arguments)


def list_all(arguments: argparse.Namespace) -> None:
    """Print all experiments."""
    print(table_to_markdown(overview_table()))


def show(arguments: argparse.Namespace) -> None:
    """Print what experiments set, and the sources of these settings."""
    for experiment in select(arguments.names, load_experiments()):
        print(f"{experiment.name}: {experiment.description}\n  tables: {', '.join(experiment.tables)}")
        for name, override in zip(("recipe", *experiment.settings), experiment.overrides()):
            source = source_of(experiment, name)
            print(f"  {override}" + (f"  # {source}" if source else ""))
        print(f"  {as_typed(queue_command(experiment))}\n")
    print("in brackets: sources, which pipelines/paper/sources.yaml explains")


def queue(arguments: argparse.Namespace) -> None:
    """Queue experiments; none is queued if one of them is wrong."""
    chosen = [_with_weights(e, arguments) for e in select(arguments.names, load_experiments())]
    load_params(PARAMS)  # so that mistakes in the file itself are reported with its own lines
    params = [params_of(experiment, PARAMS) for experiment in chosen]
    if arguments.dry_run:
        print("\n".join(as_typed(queue_command(experiment)) for experiment in chosen))
        return
    for experiment, values in zip(chosen, params):
        check_data_roots(experiment, values)
    for experiment, state in dvc_experiments.queue(chosen, ROOT):
        if state is None:
            print(f"{experiment.name}: queued")
        else:
            remove = "dvc exp remove" if state == "success" else "dvc queue remove"
            print(f"{experiment.name}: exists already ({state}); to run it again, first `{remove} {experiment.name}`")
    if arguments.start:
        print(dvc_experiments.start_queue(ROOT).strip())
    else:
        print("`dvc queue start` runs the queue; `dvc queue status` and `dvc queue logs NAME` show its progress")


def _with_weights(experiment: Experiment, arguments: argparse.Namespace) -> Experiment:
    if arguments.released:
        return with_released_weights(experiment, arguments.released)
    return with_backbone(experiment, arguments.backbone) if arguments.backbone else experiment


def table(arguments: argparse.Namespace) -> None:
    """Print or write tables."""
    _put_out(to_markdown(comparison(arguments.names, dvc_experiments.measured_runs(ROOT))), arguments.output)


def compare(arguments: argparse.Namespace) -> None:
    """Print or write experiments side by side."""
    report = side_by_side(arguments.names, dvc_experiments.all_states(ROOT), ROOT)
    as_html = arguments.output is not None and arguments.output.suffix == ".html"
    _put_out(to_html(report) if as_html else to_markdown(report), arguments.output)


def _put_out(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file."""
    if output is None:
        say(text.removesuffix("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--output {output}: the file cannot be written ({error.strerror}); give a file in an existing folder"
        ) from None


def list_figures(arguments: argparse.Namespace) -> None:
    """Print all figures that are pictures."""
    print(table_to_markdown(figures_table()))


def figure(arguments: argparse.Namespace) -> None:
    """Draw figures; each is drawn as soon as its networks are found."""
    from pipelines.paper.make_figures import make_figures

    params = load_params(PARAMS)
    params = params.model_copy(update={"recipe": arguments.recipe or params.recipe})
    given = {}
    for text in arguments.weights:
        name, separator, file = text.partition("=")
        if not separator:
            raise UserError(f"--weights {text}: expected EXPERIMENT=FILE, as in wholebody-tcformer=model.safetensors")
        given[name] = Path(file)
    for path in make_figures(arguments.names, params, given, arguments.pick, ROOT):
        print(path)


def document(arguments: argparse.Namespace) -> None:
    """Update the lists of experiments and figures in the page."""
    path = arguments.document
    path.write_text(with_overview(path.read_text(encoding="utf-8")), encoding="utf-8")


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise ValueError
    return seed


def run_seeds(arguments: argparse.Namespace) -> None:
    """Run the sample recipe with several seeds and document their figures."""
    record.document(seeds.run_seeds(arguments.seeds, ROOT))


def document_seeds(arguments: argparse.Namespace) -> None:
    """Write the recorded figures into the documents."""
    recorded = record.read_record()
    if recorded is None:
        raise UserError(f"{record.RECORD} does not exist: run `python -m stages.experiments seeds run` first")
    record.document(recorded)


def document_results(arguments: argparse.Namespace) -> None:
    """Write the results of the sample recipe into README.md."""
    results.document()


if __name__ == "__main__":
    stage_main(main)

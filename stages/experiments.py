"""The paper's experiments by name: queue them in DVC, and set what was measured beside what was published.

python -m stages.experiments list
python -m stages.experiments queue table1 --start
python -m stages.experiments table table1
"""

import argparse
from pathlib import Path

from pipelines.layout import PARAMS
from pipelines.paper import dvc_experiments
from pipelines.paper.comparison import paper_table, study_table
from pipelines.paper.dvc_experiments import queue_command, shell
from pipelines.paper.experiments import (
    TABLES,
    Experiment,
    check_data,
    load_experiments,
    measuring_released,
    params_of,
    select,
    starting_from,
)
from pipelines.params import load_params
from pipelines.process import stage_main
from pipelines.provenance import ROOT
from pipelines.report import Section, Table, build_report, markdown_table
from tcformer.errors import UserError

DOCUMENT = ROOT / "docs/experiments.md"
BEGIN, END = "<!-- table: python -m stages.experiments document -->", "<!-- end of table -->"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    what = f"tables ({', '.join(TABLES)}) or experiments"

    command = commands.add_parser("list", help="all experiments, with their tables and stages")
    command.set_defaults(run=lambda arguments: print(markdown_table(overview())))

    command = commands.add_parser("show", help="what an experiment fixes in params.yaml, and its command")
    command.add_argument("names", nargs="+", metavar="NAME", help=what)
    command.set_defaults(run=show)

    command = commands.add_parser("queue", help="put experiments into DVC's queue")
    command.add_argument("names", nargs="+", metavar="NAME", help=what)
    command.add_argument("--start", action="store_true", help="then work through the queue, in the background")
    command.add_argument("--dry-run", action="store_true", help="print the commands and queue nothing")
    weights = command.add_mutually_exclusive_group()
    weights.add_argument("--released", type=Path, metavar="FILE", help="measure these weights; train nothing")
    weights.add_argument("--backbone", type=Path, metavar="FILE", help="fine-tune from these weights; pretrain nothing")
    command.set_defaults(run=queue)

    command = commands.add_parser("table", help="published figures beside those of DVC's experiments, in Markdown")
    command.add_argument("names", nargs="+", metavar="TABLE", choices=TABLES, help=", ".join(TABLES))
    command.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    command.set_defaults(run=table)

    command = commands.add_parser("document", help=f"write the list in {DOCUMENT.relative_to(ROOT)} afresh")
    command.add_argument("--document", type=Path, default=DOCUMENT, help=argparse.SUPPRESS)
    command.set_defaults(run=document)

    arguments = parser.parse_args()
    arguments.run(arguments)


def overview() -> Table:
    """All experiments; those of a study's seeds in one row."""
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for experiment in load_experiments().values():
        name = experiment.name if experiment.seed is None else f"{experiment.name.rpartition('-')[0]}-seed0, ..."
        row = (experiment.description, ", ".join(experiment.tables), ", ".join(experiment.stages))
        rows.setdefault(row, (name, *row))
    return Table("Experiments", ("name", "what", "tables", "stages"), tuple(rows.values()), align="llll")


def show(arguments: argparse.Namespace) -> None:
    """Print experiments."""
    for experiment in select(arguments.names, load_experiments()):
        print(f"{experiment.name}: {experiment.description}\n  tables: {', '.join(experiment.tables)}")
        print("\n".join(f"  {override}" for override in experiment.overrides()))
        print(f"  {shell(queue_command(experiment))}\n")


def queue(arguments: argparse.Namespace) -> None:
    """Queue experiments, unless they are in DVC already; nothing is queued if one of them is wrong."""
    chosen = [_with_weights(e, arguments) for e in select(arguments.names, load_experiments())]
    load_params(PARAMS)  # faults of the file itself are told with its own lines
    params = [params_of(experiment, PARAMS) for experiment in chosen]
    if arguments.dry_run:
        print("\n".join(shell(queue_command(experiment)) for experiment in chosen))
        return
    for experiment, values in zip(chosen, params):
        check_data(experiment, values)
    present = dvc_experiments.present(ROOT)
    for experiment in chosen:
        state = present.get(experiment.name)
        if state:
            remove = "dvc exp remove" if state == "success" else "dvc queue remove"
            print(f"{experiment.name}: there already ({state}); to run it anew, `{remove} {experiment.name}` first")
            continue
        dvc_experiments.queue(experiment, ROOT)
        print(f"{experiment.name}: queued")
    if arguments.start:
        print(dvc_experiments.start(ROOT).strip())
    else:
        print("dvc queue start works through the queue; dvc queue status and dvc queue logs NAME tell how far it is")


def _with_weights(experiment: Experiment, arguments: argparse.Namespace) -> Experiment:
    if arguments.released:
        return measuring_released(experiment, arguments.released)
    return starting_from(experiment, arguments.backbone) if arguments.backbone else experiment


def table(arguments: argparse.Namespace) -> None:
    """Print or write tables."""
    runs = dvc_experiments.measured(ROOT)
    tables = tuple(study_table(runs) if name == "study" else paper_table(name, runs) for name in arguments.names)
    markdown, _ = build_report([Section("Published and measured", tables)], "TCFormer, the paper's tables")
    if not arguments.output:
        print(markdown, end="")
        return
    try:
        arguments.output.write_text(markdown, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{arguments.output} cannot be written ({error.strerror}): give a file in a folder") from None


def document(arguments: argparse.Namespace) -> None:
    """Write the table of the page afresh."""
    path = arguments.document
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(page: str) -> str:
    """`page` with the list of experiments between its two marks made afresh. Raises UserError without the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"the page has no place for the table: put the lines {BEGIN} and {END} into it")
    return f"{before}{BEGIN}\n\n{markdown_table(overview())}\n\n{END}{after}"


if __name__ == "__main__":
    stage_main(main)

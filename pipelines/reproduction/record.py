"""The figures of the sample recipe for several seeds: a committed file, and the table made of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.layout import ROOT
from pipelines.report.markdown import table_to_markdown
from pipelines.reproduction.measures import MEASURES
from tcformer.documents import replace_between
from tcformer.errors import UserError
from tcformer.files import atomic_write
from tcformer.tables import Table

RECORD = ROOT / "benchmarks/results/sample-seeds.json"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/experiments.md")
DEVIATIONS = 2  # standard deviations beyond the lowest and the highest figure that still count as within the spread

_BEGIN, _END = "<!-- seeds: python -m stages.experiments seeds document -->", "<!-- end of seeds -->"


@dataclass(frozen=True)
class Conditions:
    """Under what conditions figures were obtained; figures of other conditions are not put into the same record.

    Attributes:
        commit: of the code and the parameters.
        cpu: model of the CPU.
        workers: number of workers of each training.
        instruction_sets: the parameter.
    """

    commit: str
    cpu: str
    workers: int
    instruction_sets: str


@dataclass(frozen=True)
class Spread:
    """How a figure varies with the seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation of the sample (n - 1); 0 for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value, widened by `DEVIATIONS` standard deviations."""
        margin = DEVIATIONS * self.deviation
        return min(self.values) - margin, max(self.values) + margin


@dataclass(frozen=True)
class SeedRecord:
    """Figures of several seeds.

    Attributes:
        conditions: the same for all of them.
        date: of the latest seed, in ISO 8601.
        seeds: in ascending order.
        figures: name -> a value for each seed.
    """

    conditions: Conditions
    date: str
    seeds: tuple[int, ...]
    figures: dict[str, tuple[float, ...]]

    def spread(self, name: str) -> Spread | None:
        """The spread of a figure; None if it is not recorded."""
        return Spread(self.figures[name]) if name in self.figures else None

    def value(self, name: str, seed: int) -> float | None:
        """A figure of one seed; None if it is not recorded."""
        if seed not in self.seeds or name not in self.figures:
            return None
        return self.figures[name][self.seeds.index(seed)]

    def with_seed(self, seed: int, figures: dict[str, float], date: str) -> SeedRecord:
        """The record with the figures of one more seed, or with new ones of a seed that it has.

        Raises:
            UserError: some figures are missing.
        """
        if missing := [measure.name for measure in MEASURES if measure.name not in figures]:
            raise UserError(
                f"seed {seed}: no figure {missing[0]}: expected all of metrics.json's; run the evaluations again"
            )
        by_seed = {s: {name: values[i] for name, values in self.figures.items()} for i, s in enumerate(self.seeds)}
        by_seed[seed] = figures
        seeds = tuple(sorted(by_seed))
        values = {measure.name: tuple(by_seed[s][measure.name] for s in seeds) for measure in MEASURES}
        return SeedRecord(self.conditions, date, seeds, values)


def read_record(path: Path = RECORD) -> SeedRecord | None:
    """The committed record; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seeds = tuple(int(seed) for seed in content["seeds"])
        figures = {name: tuple(map(float, values)) for name, values in content["figures"].items()}
        if any(len(values) != len(seeds) for values in figures.values()):
            raise ValueError("the numbers of seeds and values differ")
        return SeedRecord(Conditions(**content["conditions"]), content["date"], seeds, figures)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}): expected what `python -m stages.experiments seeds run` writes; restore "
            "the file"
        ) from None


def write_record(record: SeedRecord, path: Path = RECORD) -> None:
    """Write the record, as a whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def seeds_table(record: SeedRecord) -> Table:
    """Mean and standard deviation of each figure."""
    rows = []
    for measure in MEASURES:
        if spread := record.spread(measure.name):
            shown = [f"{value:.{measure.digits}f}" for value in (spread.mean, spread.deviation, *spread.values)]
            rows.append((measure.name, f"{shown[0]} ± {shown[1]}", ", ".join(shown[2:])))
    seeds = ", ".join(map(str, record.seeds))
    columns = ("figure", "mean ± standard deviation", f"seeds {seeds}")
    return Table("The sample recipe with several seeds", columns, tuple(rows))


def with_seeds(page: str, record: SeedRecord) -> str:
    """The page with a newly written table.

    Raises:
        UserError: the page has no marks for the table.
    """
    about = record.conditions
    pinned = "" if about.instruction_sets == "native" else f", instruction sets {about.instruction_sets}"
    workers = "1 worker" if about.workers == 1 else f"{about.workers} workers"
    note = f"{about.cpu}, {workers}{pinned}, {record.date}, commit {about.commit[:7]}."
    return replace_between(page, _BEGIN, _END, f"\n\n{table_to_markdown(seeds_table(record))}\n\n{note}\n\n")


def document(record: SeedRecord, pages: Iterable[Path] = DOCUMENTS) -> None:
    """Rewrite the table in the documents; none is changed if one of them has no place for it."""
    written = {page: with_seeds(page.read_text(encoding="utf-8"), record) for page in pages}
    for page, text in written.items():
        page.write_text(text, encoding="utf-8")

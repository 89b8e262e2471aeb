"""An estimate as text for a terminal: tables in Markdown whose columns are aligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from pipelines.planning.estimate import GPUS, Assumptions, PlannedCluster, StageEstimate

_GIB, _MIB = 2**30, 2**20
_UNKNOWN = "-"


def as_text(recipe: str, cluster: PlannedCluster, assumptions: Assumptions, stages: Sequence[StageEstimate]) -> str:
    """The whole estimate."""
    blocks = [
        f"recipe {recipe} on {cluster.described}",
        _table(("", "how known", *(stage.stage for stage in stages)), list(_rows(cluster, stages))),
        *_remarks(cluster, stages),
    ]
    if any(stage.times for stage in stages):
        reliability = assumptions.reliability
        blocks.append(
            "Checkpoints and failures, simulated: in brackets the interval by Young's formula, then the goodput, the "
            "share of time that becomes steps which are not lost. A failure costs the steps since the last checkpoint "
            f"and {reliability.restart:g} s."
        )
        columns = ("GPUs", "a failure every", *(stage.stage for stage in stages))
        blocks.append(_table(columns, [_failure_row(gpus, stages) for gpus in GPUS]))
    blocks.append(_assumed(assumptions))
    return "\n\n".join(blocks) + "\n"


def _rows(cluster: PlannedCluster, stages: Sequence[StageEstimate]) -> list[tuple[str, ...]]:
    """Name, origin and a cell for each stage."""

    def row(name: str, how: str, cell: Callable[[StageEstimate], str]) -> tuple[str, ...]:
        return (name, how, *(cell(stage) for stage in stages))

    worker = "GPU" if cluster.gpus else "worker"
    limit = "" if cluster.memory is None else f" of {cluster.memory / _GIB:.0f}"
    read = " x ".join(["dataset", *([f"{cluster.nodes} machines"] if cluster.nodes > 1 else [])])
    speeds = ", ".join(dict.fromkeys(stage.times_from for stage in stages if stage.times))
    timed = "predicted" if speeds else "no speed given"
    return [
        row("network", "parameters", lambda s: s.network),
        row("input, pixels", "parameters", lambda s: f"{s.size[0]} x {s.size[1]}"),
        row("weights", "counted", lambda s: f"{s.parameters:,}"),
        row("training samples", "see right", lambda s: f"{s.data.samples:,} {s.data.samples_from}"),
        row("steps", "counted", lambda s: f"{s.steps:,}"),
        row(
            "micro batch x workers x accumulation",
            "counted",
            lambda s: f"{s.batch.micro_batch} x {s.batch.workers} x {s.batch.accumulation}",
        ),
        row(f"memory a {worker}, GiB", "predicted", lambda s: f"{s.memory / _GIB:.2f}{limit}"),
        row("  weights, MiB", "counted", lambda s: f"{s.state.parameters / _MIB:,.0f}"),
        row("  gradients, MiB", "counted", lambda s: f"{s.state.gradients / _MIB:,.0f}"),
        row(
            "  optimiser, MiB",
            "counted",
            lambda s: f"{s.state.optimizer / _MIB:,.0f} (ZeRO {s.training.zero_stage})",
        ),
        row("  average of the weights, MiB", "counted", lambda s: f"{s.state.average / _MIB:,.0f}"),
        row("  buffers of DeepSpeed, MiB", "predicted", lambda s: f"{s.state.buffers / _MIB:,.0f}"),
        row("  activations, MiB", "predicted", lambda s: f"{s.activations / _MIB:,.0f}"),
        row("images a second", speeds or timed, lambda s: _number(s.images_per_second)),
        row("hours", timed, lambda s: _number(s.hours)),
        row(f"{worker}-hours", timed, lambda s: _number(s.gpu_hours)),
        row(f"read from the store, GB ({read})", "see right", _read),
        row("a checkpoint, MB", "counted", lambda s: f"{s.checkpoint / 1e6:,.0f}"),
        row("checkpoint every, steps", "parameters", lambda s: f"{s.training.checkpoint_every:,}"),
        row("  by Young's formula", timed, lambda s: _UNKNOWN if s.young_steps is None else f"{s.young_steps:,}"),
        row("most workers of use", timed if speeds else "counted", lambda s: f"{s.most_useful_workers:,}"),
    ]


def _read(stage: StageEstimate) -> str:
    return _UNKNOWN if stage.read_bytes is None else f"{stage.read_bytes / 1e9:,.3g} {stage.data.stored_from}"


def _remarks(cluster: PlannedCluster, stages: Sequence[StageEstimate]) -> list[str]:
    """What the user should know: a batch that does not divide, memory that is too small."""
    remarks = []
    for stage in stages:
        if stage.batch.workers < cluster.workers:
            remarks.append(
                f"{stage.stage}: a batch of {stage.training.global_batch} cannot be divided among {cluster.workers} "
                f"workers; this column is for {stage.batch.workers}: set cluster.workers to that, or to a range"
            )
        if cluster.memory is not None and stage.memory > cluster.memory:
            remarks.append(
                f"{stage.stage}: the memory is too small; lower training.micro_batch, or set "
                "network.activation_checkpointing: true"
            )
    return remarks


def _failure_row(gpus: int, stages: Sequence[StageEstimate]) -> tuple[str, ...]:
    between = stages[0].assumptions.reliability.between_failures(gpus)
    return (str(gpus), _duration(between), *(_failures_of(stage, gpus) for stage in stages))


def _failures_of(stage: StageEstimate, gpus: int) -> str:
    return f"({_duration(stage.young_seconds(gpus))}) {stage.goodput(gpus):.4f}"


def _duration(seconds: float) -> str:
    if seconds == inf:
        return "never"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _assumed(assumptions: Assumptions) -> str:
    reliability = assumptions.reliability
    fails = "no GPU fails" if reliability.mtbf == inf else f"a GPU fails every {reliability.mtbf / 3600:,.0f} hours"
    return (
        f"Assumed: {fails} (--mtbf); the store takes "
        f"{assumptions.store / 1e6:g} MB a second (--store-speed), the network between workers "
        f"{assumptions.network / 1e9:g} GB a second (--network); where a speed is given, each micro batch takes "
        f"{assumptions.fixed:g} s whatever its size (--overhead)."
    )


def _number(value: float | None) -> str:
    """Three digits or more."""
    if value is None:
        return _UNKNOWN
    return "never" if value == inf else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for line in (columns, rule, *rows):
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)

"""What a training reports to the process that started it. Plain data: importing this module imports nothing heavy."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Started:
    """All workers are ready; sent again after a restart.

    Attributes:
        step: optimiser steps that are done already.
        steps: optimiser steps of the whole training.
        samples: in the training set.
        device: "cpu" or "cuda".
        workers: training processes.
        accumulation: micro batches that each worker processes for a step.
        micro_batch: samples of a micro batch.
    """

    step: int
    steps: int
    samples: int
    device: str
    workers: int
    accumulation: int
    micro_batch: int


@dataclass(frozen=True)
class Row:
    """Measurements after an optimiser step.

    Attributes:
        step: optimiser steps done.
        epoch: the same in epochs.
        values: name -> value; they belong to the result and are kept in its history.
        momentary: name -> value; they belong to this run alone, such as the speed.
    """

    step: int
    epoch: float
    values: dict[str, float]
    momentary: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A sentence for the person at the terminal."""

    text: str


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is complete."""

    step: int


@dataclass(frozen=True)
class Stopped:
    """The training stopped because the driver asked for it; its checkpoint is complete."""

    step: int


@dataclass(frozen=True)
class Failed:
    """A worker raised an exception.

    Attributes:
        rank: of the worker.
        message: of the exception.
        from_user: whether it is a `UserError`, whose message says all.
        traceback: as Python prints it.
    """

    rank: int
    message: str
    from_user: bool
    traceback: str


Event = Started | Row | Note | CheckpointSaved | Stopped | Failed

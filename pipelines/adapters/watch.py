"""When a training that does not end by itself must be ended: one worker raised, hangs, or nobody gets further."""

from collections.abc import Callable

from pipelines.adapters.mailbox import WorkerState

NOTICE_SECONDS = 15.0  # of silence after which the person at the terminal is told
ALIVE_SECONDS = 4.0  # workers are heard every second: one that is not heard for so long is lost or stopped
FAILURE_SECONDS = 5.0  # after a worker's exception, in which Ray may find that it lost a worker


class Watch:
    """Looks at the workers whenever the driver takes their events.

    Args:
        limit: seconds without a sign of life, or without progress, after which a training ends.
        say: shows a sentence to the person at the terminal.
    """

    def __init__(self, limit: float, say: Callable[[str], None]) -> None:
        self._limit, self._say = limit, say
        self._told: set[int] = set()

    def failure_is_final(self, seconds: float, workers: dict[int, WorkerState]) -> bool:
        """Whether an exception that a worker raised `seconds` ago ends the training.

        The other workers then wait for that one for ever. If a worker was lost instead (killed, its node gone), it is
        silent, the exceptions are those of its peers, and Ray ends the group.
        """
        return seconds > FAILURE_SECONDS and all(state.silent < ALIVE_SECONDS for state in workers.values())

    def stall(self, workers: dict[int, WorkerState]) -> str | None:
        """Why the training is given up; None while it is not."""
        silent = {rank: state for rank, state in workers.items() if state.silent > NOTICE_SECONDS}
        for rank, state in silent.items():
            if rank not in self._told:
                self._say(
                    f"rank {rank} on {state.node} has not been heard for {state.silent:.0f} s (at: {state.place}); "
                    f"waiting up to {self._limit:.0f} s"
                )
        self._told = set(silent)
        hanging = {rank: state for rank, state in silent.items() if state.silent > self._limit}
        if hanging:
            ranks = "; ".join(f"rank {rank} on {state.node} at: {state.place}" for rank, state in hanging.items())
            return f"no sign of life for {self._limit:.0f} s from {ranks}"
        if workers and all(state.since > self._limit for state in workers.values()):
            places = "; ".join(f"rank {rank} on {state.node}: {state.place}" for rank, state in workers.items())
            return f"no worker got further for {self._limit:.0f} s ({places})"
        return None

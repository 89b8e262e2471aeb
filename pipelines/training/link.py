"""A worker's connection to the driver: events go there, a request to stop comes back."""

from collections.abc import Callable
from typing import Protocol

from pipelines.training.events import Event


class Link(Protocol):
    """What the loop asks of the connection."""

    def send(self, event: Event) -> None:
        """Hand an event to the driver, without waiting."""
        ...

    def stops_before(self, step: int) -> bool:
        """Whether the training stops before `step`. All workers ask before each step and get the same answer."""
        ...

    def at(self, place: str) -> None:
        """Note what this worker does now, in a few words: the driver names it if the training stalls."""
        ...


class LocalLink:
    """The link of a training in the driver's own process.

    Args:
        on_event: receives the events.
        stops_before: the step -> whether to stop before it.
    """

    def __init__(self, on_event: Callable[[Event], None], stops_before: Callable[[int], bool]) -> None:
        self._on_event, self._stops_before = on_event, stops_before

    def send(self, event: Event) -> None:
        """Pass the event on at once."""
        self._on_event(event)

    def stops_before(self, step: int) -> bool:
        """Ask the given function."""
        return self._stops_before(step)

    def at(self, place: str) -> None:
        """Nobody watches: whoever looks at this process sees where it is."""

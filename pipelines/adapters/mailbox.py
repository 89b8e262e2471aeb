"""The actor that carries events from workers to the driver. Its process imports neither PyTorch nor the network."""

from pipelines.training.events import Event


class Mailbox:
    """Keeps what workers send until the driver takes it."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def send(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """All events since the last call, in the order in which they came."""
        events, self._events = self._events, []
        return events

"""What an encoder is given: messages that go out together, on whichever wire."""

from collections.abc import Sequence
from typing import Protocol

from twincast.core.model import Entry, Position


class Outgoing(Protocol):
    """Messages that go out together, each a JSON text in one line."""

    @property
    def messages(self) -> Sequence[bytes]:
        """The messages in order."""

    @property
    def entries(self) -> Sequence[Entry]:
        """The entry that each message tells of; none if the messages are replies to one client."""

    @property
    def cursor(self) -> Position | None:
        """Where a client is that has these replies; None if they do not move it."""

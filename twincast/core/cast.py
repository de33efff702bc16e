"""One commit's changes on their way to everyone who watches."""

from collections.abc import Sequence
from typing import Protocol

from twincast.core import frames
from twincast.core.model import Entry


class Cast:
    """Messages that go out together: each encoded once, all framed once, however many clients take them.

    `entries` and `messages` run in parallel; a cast that answers one client only (hello, pong, ack) has no entries.
    """

    __slots__ = ("_frames", "entries", "messages")

    def __init__(self, messages: Sequence[bytes], entries: Sequence[Entry] = ()) -> None:
        self.messages = messages
        self.entries = entries
        self._frames: bytes | None = None

    @property
    def frames(self) -> bytes:
        """The RFC 6455 text frames of all messages, joined; made at the first call, then shared."""
        if self._frames is None:
            self._frames = frames.text(self.messages)
        return self._frames


class Watcher(Protocol):
    """Whoever follows the stream of changes."""

    def offer(self, cast: Cast) -> None:
        """Take the changes of the next commit; never block, never raise."""

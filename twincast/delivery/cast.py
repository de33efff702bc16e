"""Outgoing messages on their way to every client that receives them."""

from collections.abc import Callable, Sequence
from functools import cached_property

from twincast.core.model import Entry, Erased, Late, Position, Topic
from twincast.wire.outgoing import Outgoing

Encoder = Callable[[Outgoing], bytes]
"""How one wire writes messages: `encode` of wire/frames, `encode` of wire/event_stream. A new wire brings its own."""


class Encodings(dict[Encoder, bytes]):
    """Messages as each wire sends them: `encodings[encoder]` is made when a wire first asks, then shared.

    A mapping and no method, because every delivery reads it: a method's call would cost more than the rest of the
    look-up. It keeps what an encoder needs, and not the cast, which with it would be garbage only a collector finds.
    """

    __slots__ = ("cursor", "entries", "messages")

    def __init__(self, messages: Sequence[bytes], entries: Sequence[Entry], cursor: Position | None) -> None:
        self.messages = messages
        self.entries = entries
        self.cursor = cursor

    def __missing__(self, encoder: Encoder) -> bytes:
        encoded = self[encoder] = encoder(self)
        return encoded


class Cast:
    """A batch of outgoing messages, encoded once per wire; it also carries single replies.

    `entries` runs parallel to `messages`; a reply to one client (hello, pong, ack) has none.
    `merged` runs parallel too, and says how many entries each message stands for; None means one each.
    `cursor` is where a client is once it has such a reply; None if the reply does not move it.
    `has_late` says whether there are late readings among the entries, or places of erased ones; None if that is still
    to be looked for.
    """

    # __dict__ holds what is made once and shared
    __slots__ = ("__dict__", "_has_late", "encoded", "entries", "merged", "messages")

    def __init__(
        self,
        messages: Sequence[bytes],
        entries: Sequence[Entry] = (),
        merged: Sequence[int] | None = None,
        *,
        cursor: Position | None = None,
        has_late: bool | None = None,
    ) -> None:
        self.messages = messages
        self.entries = entries
        self.merged = merged
        self._has_late = has_late
        self.encoded = Encodings(messages, entries, cursor)
        """All messages, joined, as each wire sends them."""

    @cached_property
    def size_bytes(self) -> int:
        """The length of all messages."""
        return sum(map(len, self.messages))

    @property
    def has_late(self) -> bool:
        """Whether there are late readings among the entries, or places of erased ones: most leave those out."""
        if self._has_late is None:
            kinds = set(map(type, self.entries))
            self._has_late = Late in kinds or Erased in kinds
        return self._has_late

    @cached_property
    def on_time(self) -> "Cast":
        """A cast of all but the late readings; this very cast if there are none."""
        if not self.has_late:
            return self
        return self.pick([index for index, entry in enumerate(self.entries) if not isinstance(entry, Late | Erased)])

    @property
    def merged_away(self) -> int:
        """How many entries are left out, because a newer one of their device is in the cast."""
        return 0 if self.merged is None else sum(self.merged) - len(self.merged)

    @cached_property
    def topics(self) -> dict[Topic, list[int]]:
        """Where in `entries` each topic is."""
        topics: dict[Topic, list[int]] = {}
        for index, entry in enumerate(self.entries):
            topics.setdefault(entry.topic, []).append(index)
        return topics

    def pick(self, indexes: Sequence[int]) -> "Cast":
        """Return a cast of some of the entries, by ascending index; this very cast if it is all of them."""
        if len(indexes) == len(self.entries):
            return self
        messages, entries, merged = self.messages, self.entries, self.merged
        return Cast(
            [messages[index] for index in indexes],
            [entries[index] for index in indexes],
            merged and [merged[index] for index in indexes],
        )

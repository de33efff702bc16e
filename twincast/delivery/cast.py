"""One commit's changes on their way to everyone who watches."""

from collections.abc import Sequence
from functools import cached_property

from twincast.core.model import Entry, Position, Topic
from twincast.core.subscription import Subscription
from twincast.wire import event_stream, frames


class Cast:
    """Messages that go out together: each encoded once, all framed once, however many clients take them.

    `entries` runs parallel to `messages`; a cast that answers one client only (hello, pong, ack) has none.
    `merged` runs parallel too, and says how many changes each message stands for; None means one each.
    `cursor` is where a client is once it has such an answer; None if it does not move.
    """

    __slots__ = ("__dict__", "cursor", "entries", "merged", "messages")  # __dict__ holds what is made once and shared

    def __init__(
        self,
        messages: Sequence[bytes],
        entries: Sequence[Entry] = (),
        merged: Sequence[int] | None = None,
        *,
        cursor: Position | None = None,
    ) -> None:
        self.messages = messages
        self.entries = entries
        self.merged = merged
        self.cursor = cursor

    @cached_property
    def frames(self) -> bytes:
        """The RFC 6455 text frames of all messages, joined; made at the first call, then shared."""
        return frames.text(self.messages)

    @cached_property
    def events(self) -> bytes:
        """All messages as server-sent events, joined; made at the first call, then shared."""
        if self.entries:
            ids = [f"{entry.epoch}:{entry.seq}" for entry in self.entries]
        else:
            ids = [""] * (len(self.messages) - 1) + [str(self.cursor or "")]
        return event_stream.text(self.messages, ids)

    @cached_property
    def size_bytes(self) -> int:
        """The length of all messages."""
        return sum(map(len, self.messages))

    @property
    def merged_away(self) -> int:
        """How many changes newer ones took the place of, before this."""
        return 0 if self.merged is None else sum(self.merged) - len(self.merged)

    @cached_property
    def topics(self) -> dict[Topic, list[int]]:
        """Where in `entries` each topic is."""
        topics: dict[Topic, list[int]] = {}
        for index, entry in enumerate(self.entries):
            topics.setdefault(entry.topic, []).append(index)
        return topics

    def pick(self, indexes: Sequence[int]) -> "Cast":
        """Return a cast of some of the changes, by ascending index; this very one if it is all of them."""
        if len(indexes) == len(self.entries):
            return self
        messages, entries, merged = self.messages, self.entries, self.merged
        return Cast(
            [messages[index] for index in indexes],
            [entries[index] for index in indexes],
            merged and [merged[index] for index in indexes],
        )

    def select(self, subscription: Subscription) -> "Cast":
        """Return a cast of the changes that a subscription selects."""
        if subscription.is_everything:
            return self
        topics = self.topics
        if not subscription.ends and len(subscription.exact) < len(topics):
            lists = [topics[topic] for topic in subscription.exact if topic in topics]
        else:
            lists = [indexes for topic, indexes in topics.items() if subscription.selects(topic)]
        return self.pick(sorted(index for indexes in lists for index in indexes))

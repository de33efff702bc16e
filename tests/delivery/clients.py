"""Clients of a stream without a socket: a feed on a recorded connection, and what it was sent."""

import json
from typing import Any

from tests.fakes import CommittingStream, FreePayer, RecordingConnection, StallingConnection
from twincast.core.literals import LENGTH_STEPS, LOOK_STEPS, PIECE_CHARS
from twincast.core.names import NAME_MAX_CHARS
from twincast.core.pattern import Pattern
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.errors import TwincastError

PLENTY_BYTES = 1 << 40
COSTLY = [f"*{'a*' * (60 + number % 2)}{'a' * (45 + number // 2)}*" for number in range(100)]
"""Patterns that select no name of a hundred times `a` and some digits, and that none of their texts tells apart."""
COSTLY_STEPS = sum(Pattern(text).cost for text in COSTLY) + LOOK_STEPS + LENGTH_STEPS + PIECE_CHARS * NAME_MAX_CHARS
"""What it takes at most to hold a name against them."""
CAST_OF_PONG = Cast((b'{"type":"pong"}',))


def selecting(*patterns: str, mode: Mode = "latest", max_hz: float | None = None) -> Subscription:
    return Subscription(rules_of(patterns), mode, max_hz)


EVERYTHING = selecting("*")


class Client:
    """A feed on a connection, and the errors that ended it."""

    def __init__(
        self,
        stream: CommittingStream,
        connection: RecordingConnection | None = None,
        *,
        outbox_max_bytes: int = PLENTY_BYTES,
    ) -> None:
        self.connection = connection or RecordingConnection()
        self.ended: list[TwincastError] = []
        self.budget = FreePayer()
        self.feed = Feed(
            self.connection.write, stream, self.ended.append, budget=self.budget, outbox_max_bytes=outbox_max_bytes
        )
        if isinstance(self.connection, StallingConnection):
            self.connection.pause = self.feed.sender.pause

    def heard(self) -> list[Any]:
        """Return what the client was sent since the last call."""
        return [json.loads(message) for message in self.connection.taken()]

    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.heard()]


def a_stream(*devices: str, **options: Any) -> CommittingStream:
    stream = CommittingStream(**options)
    for device_id in devices:
        stream.change(device_id, b"%d" % (stream.state.seq + 1))
    return stream


def a_client(stream: CommittingStream, subscription: Subscription, **options: Any) -> Client:
    client = Client(stream, **options)
    client.feed.begin(subscription)
    client.heard()
    return client


def waiting(stream: CommittingStream) -> CommittingStream:
    """Return a stream on which no work is so short that it is done at once."""
    stream.scheduler.at_once_steps = 0
    return stream


def work_on(stream: CommittingStream) -> None:
    for _ in range(20):
        stream.pass_time(0)

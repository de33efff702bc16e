"""The subjects of NATS beside a shared log: what is stored goes out on them, readings and commands come in.

All of it acts as the one API key that `--nats-key` names, for NATS tells a subscriber nothing of who published.
docs/nats.md has the subjects and the promises.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

TOLD_S = 10.0

logger = logging.getLogger("twincast.nats")


class Message(Protocol):
    """What came on a subject."""

    subject: str
    reply: str
    """Where an answer is expected; empty for nowhere."""
    data: bytes
    headers: dict[str, str] | None


class Subscription(Protocol):
    """What has messages taken."""

    async def drain(self) -> None:
        """End it, once what has come already was taken."""


class Link(Protocol):
    """A connection to NATS of its own: what others publish must not be able to hold up the log."""

    on_connection: list[Callable[[bool], None]]

    @property
    def is_connected(self) -> bool:
        """Whether what is sent now goes out now."""

    @property
    def max_payload_bytes(self) -> int:
        """How large a message may be."""

    def send(self, lines: bytes) -> None:
        """Send `PUB` lines with their payloads; raises JournalUnavailable without a connection."""

    async def confirm(self) -> None:
        """Return when NATS has what was sent; raises JournalUnavailable if it does not say so."""

    async def subscribe(
        self, subject: str, take: Callable[[Message], Awaitable[None]], *, queue: str = ""
    ) -> Subscription:
        """Have messages taken, one after the other; raises JournalUnavailable."""


class Counters:
    """What is counted of NATS's subjects, and said in the log, at most once in TOLD_S for each kind."""

    def __init__(self) -> None:
        self.sent = 0
        """Events that went out."""
        self.passed_over = 0
        """Events that did not: the log no longer had them, or NATS takes no message so large."""
        self.taken = 0
        """Readings and commands that were stored."""
        self.untold = 0
        """Readings and commands that were refused, and whose sender had asked for no answer; and lost answers."""
        self._told_s = {"passed_over": -TOLD_S, "untold": -TOLD_S}

    def pass_over(self, count: int, why: str) -> None:
        """Count events that do not go out."""
        self.passed_over += count
        self._tell("passed_over", "%d events in all did not go out to NATS; the last: %s", self.passed_over, why)

    def tell_nobody(self, count: int, why: str) -> None:
        """Count what came in and was not answered."""
        self.untold += count
        self._tell("untold", "%d messages in all came by NATS and were not answered; the last: %s", self.untold, why)

    def _tell(self, kind: str, text: str, count: int, why: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s[kind] >= TOLD_S:
            self._told_s[kind] = now_s
            logger.warning(text, count, why)

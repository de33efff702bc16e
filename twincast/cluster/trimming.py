"""Trims the stream of a shared log, as the copies trim themselves: one server does it for all, the first of the list.

Only commits go; changes of the keys stay. And only what two servers have stored in their copies, a round ago at least:
a new server fetches the copy of one of them. Where there is one server, what that one has. When a history was deleted,
all that came up to that goes, but for the newest commit: by that one a copy knows the stream again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from twincast.core.peers import Member
from twincast.core.space import Space
from twincast.errors import TwincastError
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.fold import nanoseconds_of
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import first_commit, nanoseconds, stream_facts

logger = logging.getLogger("twincast.cluster")

ROUND_S = 60.0
"""How often it is looked whether something may go."""
COPIES = 2
"""How many copies must have what goes, where there are so many servers."""


class Erasing(Protocol):
    """What a shared journal says of histories that were deleted."""

    async def erased_in_stream(self) -> int:
        """Return up to which message the stream is to go; 0 if there is nothing that is to."""

    async def stream_begins(self, first_stream_seq: int) -> None:
        """Take note that the stream has nothing before a message any more."""


class StreamTrim:
    """Lives on one event loop; `run` drives it."""

    def __init__(
        self,
        link: Link,
        address: NatsAddress,
        *,
        space: Callable[[], Space],
        members: Callable[[], Sequence[Member]],
        is_first: Callable[[], bool],
        erasing: "Erasing | None" = None,
        keeps_all: bool = False,
    ) -> None:
        """Trim later.

        Args:
            link: the connection.
            address: the log.
            space: returns how much of the log this server's copy still has.
            members: returns the servers that live, this one among them.
            is_first: whether this server does what one does for all.
            erasing: says up to where histories are erased.
            keeps_all: whether nothing goes but what is erased.
        """
        self._erasing, self._keeps_all = erasing, keeps_all
        self._link, self._address = link, address
        self._space, self._members, self._is_first = space, members, is_first
        self._stored = 0

    async def run(self) -> None:
        """Trim, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self.round()
            except TwincastError as error:
                logger.info("the stream is not trimmed: %s", error)

    async def round(self) -> int | None:
        """Take off the stream what may go; return where it begins then, None if nothing went.

        Raises:
            JournalUnavailable: NATS does not answer, or refuses.
        """
        until, self._stored = self._stored, stored_by(self._members(), COPIES)
        erased = 0 if self._erasing is None else await self._erasing.erased_in_stream()
        oldest_at_utc = self._oldest_kept()
        is_for_all = bool(until) and self._is_first()
        if not erased and not (is_for_all and oldest_at_utc):
            return None
        facts = await stream_facts(self._link, self._address)
        begin = first = await first_commit(self._link, self._address, facts)
        if is_for_all and oldest_at_utc:
            begin = await self._first_since(nanoseconds_of(oldest_at_utc), first, min(until, facts.last_seq))
        if is_for_all and erased:
            begin = max(begin, min(erased + 1, until, facts.last_seq))
        if begin > first:
            await self._purge(begin)
        if erased and self._erasing is not None:
            await self._erasing.stream_begins(begin)
        return begin if begin > first else None

    def _oldest_kept(self) -> str | None:
        """Return the time from which on the copy has the log; None if it has all of it, or all is kept."""
        space = self._space()
        return space.oldest_at_utc if not self._keeps_all and space.oldest_seq > 1 else None

    async def _purge(self, begin: int) -> None:
        body = {"seq": begin, "filter": self._address.log_subject}
        purged = await self._link.ask(f"STREAM.PURGE.{self._address.stream}", body, timeout_s=5.0)
        logger.info("the stream was trimmed: %d commits went, it begins at %d", purged.get("purged", 0), begin)

    async def _first_since(self, time_ns: int, low: int, high: int) -> int:
        """Return the first message from `low` on, up to `high`, that is not older than a time; behind it none lacks."""
        while low < high:
            middle = (low + high) // 2
            answer = await self._link.ask(f"STREAM.MSG.GET.{self._address.stream}", {"seq": middle})
            if nanoseconds(answer["message"]["time"]) < time_ns:
                low = middle + 1
            else:
                high = middle
        return low


def stored_by(members: Sequence[Member], copies: int) -> int:
    """Return up to which message so many servers have the log in their copies; or all, where there are fewer."""
    stored = sorted((member.heartbeat.stored_stream_seq for member in members), reverse=True)
    return stored[min(copies, len(stored)) - 1] if stored else 0

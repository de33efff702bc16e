"""How watches begin and end: a connection is asked for what it does not bring yet, and spared what nobody needs."""

import asyncio
from functools import partial
from typing import Protocol

from twincast.client.backoff import Backoff
from twincast.client.coverage import Brought, Missing, split
from twincast.client.incoming import Incoming, with_deletions
from twincast.client.link import Message
from twincast.client.outgoing import Answered
from twincast.client.watch import Watch
from twincast.core.subscription import Subscription
from twincast.errors import ServerUnreachable, TwincastError, Unavailable

ASKING_MAX = 16
"""How many watches ask at a time: a server keeps a bounded number of wishes for who has not caught up."""


class Line(Protocol):
    """What a negotiation needs of a connection."""

    @property
    def is_live(self) -> bool:
        """Whether there is one at the moment."""

    @property
    def is_asking(self) -> bool:
        """Whether a question has no answer yet."""

    async def live(self) -> None:
        """Wait for one. Raises why there will be none any more."""

    def ask(self, message: Message, answered: Answered) -> None:
        """Send a question. Answers come in the order of the questions."""


class Negotiation:
    """See Feeder."""

    def __init__(self, incoming: Incoming, line: Line) -> None:
        self._incoming = incoming
        self._line = line
        self._brought = Brought()
        self._scheduler = asyncio.Semaphore(ASKING_MAX)

    def anew(self) -> Subscription:
        """Return what a new connection is to bring from the cursor on. What is about to begin asks again then."""
        needed = self._incoming.needed(soon=False)
        self._brought = Brought.by(needed)
        self._incoming.forget_all_but(needed)
        return needed

    def narrow(self, needed: Subscription) -> None:
        """Ask a connection that brings everything, because no address holds so many patterns, for these alone."""
        errors: list[TwincastError] = []

        def answered(error: TwincastError | None) -> None:
            if error is not None:
                errors.append(error)

        def narrowed(error: TwincastError | None) -> None:
            answered(error)
            if not errors and "*" not in dict(needed.rules) and self._line.is_live:
                self._line.ask({"type": "unsubscribe", "devices": ["*"]}, partial(self._unsubscribed, needed))

        *first, last = Missing(dict(needed.rules), needed.mode, needed.max_hz, lifts_rate=False).questions()
        for question in first:
            self._line.ask(question, answered)
        self._line.ask(last, narrowed)

    async def start(self, watch: Watch) -> None:
        """Begin to offer a watch what it selects.

        If cancelled, the watch does not begin, and nothing is brought for it.

        Raises:
            ValidationFailed: with all that is watched already, it asks for too much.
            TwincastError: the server refused it, or there will be no connection any more.
        """
        backoff = Backoff()
        try:
            self._incoming.want(watch)
            while True:
                await self._line.live()
                try:
                    async with self._scheduler:
                        await self._begun(watch)
                    return
                except ServerUnreachable:
                    continue  # the connection was lost meanwhile; the next one is asked again
                except Unavailable:
                    await asyncio.sleep(backoff.wait_s())
        except BaseException:
            self.end(watch)
            raise

    def end(self, watch: Watch) -> None:
        """Offer a watch nothing more."""
        self._incoming.remove(watch)
        needed = self._incoming.needed()
        removed = self._brought.remove_all_but(needed)
        if self._line.is_live:
            for part in split(removed):
                self._line.ask({"type": "unsubscribe", "devices": part}, partial(self._unsubscribed, needed))

    def _unsubscribed(self, kept: Subscription, error: TwincastError | None) -> None:
        if error is None:  # what more is asked for meanwhile brings its state behind this answer
            self._incoming.forget_all_but(kept)

    async def _begun(self, watch: Watch) -> None:
        if not self._line.is_live:
            raise ServerUnreachable("the connection was lost")
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begin(watch, begun)
        await begun

    def _begin(self, watch: Watch, begun: asyncio.Future[None], *, is_answered: bool = False) -> None:
        missing = self._brought.lacks(with_deletions(watch.subscription))
        if missing is None and (is_answered or not self._line.is_asking):
            self._incoming.add(watch)
            begun.set_result(None)
            return
        undo = None if missing is None else self._brought.add(missing)
        errors: list[TwincastError] = []

        def answered_part(error: TwincastError | None) -> None:
            if error is not None:
                errors.append(error)

        def answered(error: TwincastError | None) -> None:
            answered_part(error)
            if errors and undo is not None:
                undo()
            if begun.done():  # its watch was cancelled
                return
            if errors:
                begun.set_exception(errors[0])
            else:  # in the very step in which it is read: what comes behind it is the watch's
                self._begin(watch, begun, is_answered=True)

        # What this watch needs may have been asked for by another one and not be answered yet, or be refused still:
        # an empty question waits for that.
        *first, last = [{"type": "subscribe"}] if missing is None else missing.questions()
        for question in first:
            self._line.ask(question, answered_part)
        self._line.ask(last, answered)

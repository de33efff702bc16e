"""Keeps what a connection is subscribed to equal to what the watches need together."""

import asyncio
from functools import partial
from typing import Protocol

from twincast.client.backoff import Backoff
from twincast.client.coverage import Coverage, Missing, split
from twincast.client.incoming import Incoming, with_deletions
from twincast.client.message import Message
from twincast.client.questions import OnAnswer
from twincast.client.watch import Watch
from twincast.core.subscription import Subscription
from twincast.errors import ServerUnreachable, TwincastError, Unavailable

STARTING_MAX = 16
"""How many watches ask at a time: a server queues a bounded number of requests from a client that is catching up."""


class Line(Protocol):
    """What this needs of a connection: whether there is one, and to ask on it."""

    @property
    def is_live(self) -> bool:
        """Whether there is a connection at the moment."""

    @property
    def is_asking(self) -> bool:
        """Whether a question has no answer yet."""

    async def live(self) -> None:
        """Wait for a connection. Raises why there will be none any more."""

    def ask(self, message: Message, on_answer: OnAnswer) -> None:
        """Send a question. Answers arrive in the order of the questions."""


class Subscriptions:
    """Starts and ends watches on the connection; a Feeder needs both.

    A watch goes through these states:

    - *wanted*, from `start` on: it counts for what the next connection asks for, and is offered nothing.
    - *asking*: what the connection lacks for it was asked for. A lost connection, or an answer that the server cannot
      do it now, leads back to *wanted*; a refusal ends the watch.
    - *live*: every question that its events depend on has been answered. It is added to `incoming` in the same step in
      which the last answer is read, so it is offered exactly what comes behind that answer.
    """

    def __init__(self, incoming: Incoming, line: Line) -> None:
        self._incoming = incoming
        self._line = line
        self._coverage = Coverage()
        self._starting = asyncio.Semaphore(STARTING_MAX)

    def renew(self) -> Subscription:
        """Return what a new connection must ask for. Watches that are not live yet ask again once it is there."""
        needed = self._incoming.needed(soon=False)
        self._coverage = Coverage.of(needed)
        self._incoming.forget_all_but(needed)
        return needed

    def narrow(self, needed: Subscription) -> None:
        """Reduce a connection that receives everything, because its patterns fit no address, to these patterns."""
        errors: list[TwincastError] = []

        def on_answer(error: TwincastError | None) -> None:
            if error is not None:
                errors.append(error)

        def on_last_answer(error: TwincastError | None) -> None:
            on_answer(error)
            if not errors and "*" not in dict(needed.rules) and self._line.is_live:
                self._line.ask({"type": "unsubscribe", "devices": ["*"]}, partial(self._unsubscribed, needed))

        *first, last = Missing(dict(needed.rules), needed.mode, needed.max_hz, lifts_rate=False).requests()
        for request in first:
            self._line.ask(request, on_answer)
        self._line.ask(last, on_last_answer)

    async def start(self, watch: Watch) -> None:
        """Start to offer a watch what it selects.

        If cancelled, the watch does not start, and nothing is received for it.

        Raises:
            ValidationFailed: together with all other watches, it is more than a subscription may have.
            TwincastError: the server refused it, or there will be no connection any more.
        """
        backoff = Backoff()
        try:
            self._incoming.want(watch)
            while True:
                await self._line.live()
                try:
                    async with self._starting:
                        await self._start_once(watch)
                    return
                except ServerUnreachable:
                    continue  # the connection was lost meanwhile; the next one is asked again
                except Unavailable:
                    await asyncio.sleep(backoff.wait_s())
        except BaseException:
            self.end(watch)
            raise

    def end(self, watch: Watch) -> None:
        """Stop offering, and unsubscribe from what no other watch needs."""
        self._incoming.remove(watch)
        needed = self._incoming.needed()
        removed = self._coverage.remove_all_but(needed)
        if self._line.is_live:
            for part in split(removed):
                self._line.ask({"type": "unsubscribe", "devices": part}, partial(self._unsubscribed, needed))

    def _unsubscribed(self, kept: Subscription, error: TwincastError | None) -> None:
        if error is None:  # the state of what is asked for meanwhile comes behind this answer
            self._incoming.forget_all_but(kept)

    async def _start_once(self, watch: Watch) -> None:
        if not self._line.is_live:
            raise ServerUnreachable("the connection was lost")
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask_for(watch, started)
        await started

    def _ask_for(self, watch: Watch, started: asyncio.Future[None], *, is_answered: bool = False) -> None:
        missing = self._coverage.missing_for(with_deletions(watch.subscription))
        if missing is None and (is_answered or not self._line.is_asking):
            self._incoming.add(watch)
            started.set_result(None)
            return
        undo = None if missing is None else self._coverage.add(missing)
        errors: list[TwincastError] = []

        def on_answer(error: TwincastError | None) -> None:
            if error is not None:
                errors.append(error)

        def on_last_answer(error: TwincastError | None) -> None:
            on_answer(error)
            if errors and undo is not None:
                undo()
            if started.done():  # the watch was cancelled
                return
            if errors:
                started.set_exception(errors[0])
            else:  # in the very step in which the answer is read: what comes behind it belongs to the watch
                self._ask_for(watch, started, is_answered=True)

        # What this watch needs may have been asked for by another watch, whose answer is still to come, and may be a
        # refusal. An empty question waits for that answer.
        *first, last = [{"type": "subscribe"}] if missing is None else missing.requests()
        for request in first:
            self._line.ask(request, on_answer)
        self._line.ask(last, on_last_answer)

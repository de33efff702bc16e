"""The past, asked for in this process: what REST answers, without a request."""

import asyncio
from collections.abc import Generator
from typing import TypeVar

from twincast.access.request import Caller
from twincast.client.message import Message, decode
from twincast.delivery.scheduler import Unmetered
from twincast.errors import Stopping
from twincast.inside.running import Running
from twincast.transports.answer import in_turns
from twincast.transports.operation import Call

Found = TypeVar("Found")
_BUDGET = Unmetered("inside")


class Past:
    """The log's past, as far as a principal may read it."""

    def __init__(self, running: Running, caller: Caller) -> None:
        """Ask for a caller, whose rights count."""
        self._running = running
        self._caller = caller

    async def of(self, addresses: Generator[str, Message, Found]) -> Found:
        """Get what is at some addresses of REST, one after another, and return what comes of it.

        Args:
            addresses: yields them, and takes the answer to each.

        Raises:
            TwincastError: what REST would answer; NotStarted, NotReady and Stopping, see Running.hub.
        """
        _ = self._running.hub  # raises, unless it runs
        working = asyncio.create_task(self._work(addresses), name="the past")
        self._running.keep(working, lambda _: working.cancel())
        try:
            return await working
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Stopping("this twincast has ended") from None

    async def _work(self, addresses: Generator[str, Message, Found]) -> Found:
        async with self._running.asking:
            try:
                address = next(addresses)
                while True:
                    address = addresses.send(await self._answer(address))
            except StopIteration as end:
                found: Found = end.value
                return found

    async def _answer(self, address: str) -> Message:
        path, _, query = address.partition("?")
        reads = (each for each in self._running.app.operations if each.method == "GET" and each.path == path)
        answer = await next(reads).run(Call(self._caller, query, "", None, b"", budget=_BUDGET))
        body = answer.body
        return decode(body if isinstance(body, bytes) else b"".join([piece async for piece in in_turns(body)]))

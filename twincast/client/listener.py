"""Callbacks for commands: each is called for one command after another, and says from when on it hears them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Self

from twincast.client.events import Change
from twincast.client.watch import Watch
from twincast.errors import ServerUnreachable, TwincastError

logger = logging.getLogger("twincast.client")

OnCommand = Callable[[Change], Awaitable[None] | None]


class Obeying:
    """A callback that commands go to, made by `Hub.on_command`.

    It begins by itself. `await` it, or use it with `async with`, to go on once no command that comes can be missed; it
    lasts until the end of that context, until `end`, or as long as its hub.
    """

    def __init__(self, watch: Watch, target: str, call: OnCommand) -> None:
        self._watch = watch
        self._target = target
        self._call_it = call
        self._live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._obey(), name=f"commands to {target}")

    def __await__(self) -> Generator[object, None, Self]:
        """Wait until it is live: the server tells of every command that it takes from now on.

        Raises:
            TwincastError: the server refused it, or there will be no connection any more.
        """
        yield from asyncio.shield(self._live).__await__()
        return self

    @property
    def is_over(self) -> bool:
        """Whether it began and has ended."""
        return self._task.done() and self._live.exception() is None

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Call it no more. What it is about to do for a command is cancelled."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _obey(self) -> None:
        try:
            async with self._watch as changes:
                self._live.set_result(None)
                async for change in changes:
                    await self._call(change)
        except ServerUnreachable as error:
            self._fail(error)  # the hub was closed
        except TwincastError as error:
            logger.error("commands to %s are no longer obeyed: %s", self._target, error.message)
            self._fail(error)
        finally:
            self._fail(ServerUnreachable("it was ended before it began"))

    def _fail(self, error: TwincastError) -> None:
        if not self._live.done():
            self._live.set_exception(error)
            self._live.exception()  # nobody needs to wait for it

    async def _call(self, change: Change) -> None:
        try:
            result = self._call_it(change)
            if result is not None:
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # it is this callback, or its hub, that ends
                raise
            logger.exception("the callback for commands to %s was cancelled", change.device_id)
        except Exception:
            logger.exception("the callback for commands to %s failed", change.device_id)

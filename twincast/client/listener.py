"""Callbacks for commands: each is called for one command after another, once the server sends them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Self

from twincast.client.events import Command
from twincast.client.watch import Watch
from twincast.errors import ServerUnreachable, TwincastError

logger = logging.getLogger("twincast.client")

OnCommand = Callable[[Command], Awaitable[None] | None]


class CommandListener:
    """A callback for commands, made by `Client.on_command`.

    It starts by itself. `await` it, or use it with `async with`, to continue once no command can be missed. It ends
    with that context, with `end`, or with its client.
    """

    def __init__(self, watch: Watch, target: str, call: OnCommand) -> None:
        self._watch = watch
        self._target = target
        self._callback = call
        self._live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"commands to {target}")

    def __await__(self) -> Generator[object, None, Self]:
        """Wait until it is live: the server sends every command that it stores from now on.

        Raises:
            TwincastError: the server refused the subscription, or the client will not connect any more.
        """
        yield from asyncio.shield(self._live).__await__()
        return self

    @property
    def is_over(self) -> bool:
        """Whether it was live and has ended."""
        return self._task.done() and self._live.exception() is None

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Stop listening. A callback that is running is cancelled; if it returns then, its command is finished."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        task = asyncio.current_task()
        try:
            async with self._watch as events:
                self._live.set_result(None)
                async for event in events:
                    assert isinstance(event, Command), "the watch selects commands only"
                    await self._call(event)
                    if task is not None and task.cancelling():
                        break
        except ServerUnreachable as error:
            self._fail(error)  # the client was closed
        except TwincastError as error:
            logger.error("the callback for commands to %s is no longer called: %s", self._target, error.message)
            self._fail(error)
        finally:
            self._fail(ServerUnreachable("it was ended before it was live"))

    def _fail(self, error: TwincastError) -> None:
        if not self._live.done():
            self._live.set_exception(error)
            self._live.exception()  # marks it as retrieved: waiting for it is optional

    async def _call(self, command: Command) -> None:
        try:
            result = self._callback(command)
            if result is not None:
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # this listener, or its client, is ending
                raise
            logger.exception("the callback for commands to %s was cancelled", command.device_id)
        except Exception:
            logger.exception("the callback for commands to %s failed", command.device_id)

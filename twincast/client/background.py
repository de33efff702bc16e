"""Runs a client in an event loop of its own, in a thread, for programs without asyncio."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from twincast.client.client import Client
from twincast.errors import ServerUnreachable

T = TypeVar("T")


class Background:
    """One client in an event loop, in a thread, for the process that made it. The thread ends with the client."""

    def __init__(self, context: AbstractAsyncContextManager[Client]) -> None:
        self._context = context
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="twincast client", daemon=True)
        self._thread.start()

    def enter(self) -> Client:
        """Connect. If that raises, the thread ends."""
        try:
            return self.wait(self._enter())
        except BaseException:
            self.close()
            raise

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop; return its result.

        Raises:
            RuntimeError: it could never run, because this process was forked, or this is the loop's own thread.
            ServerUnreachable: the client was closed.
        """
        try:
            self._check()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Start a coroutine in the loop, if the loop still runs, and do not wait for it."""
        if self._is_elsewhere or self._loop.is_closed():
            work.close()
            return
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(work))

    def leave(self) -> None:
        """Close the client and end the thread, once."""
        if not self._is_elsewhere and not self._loop.is_closed():
            try:
                self.wait(self._leave())
            finally:
                self.close()

    def abandon(self) -> None:
        """Do the same for a client that nothing refers to any more, and do not wait."""
        if not self._is_elsewhere and not self._loop.is_closed():
            self.begin(self._leave_alone())

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def _is_elsewhere(self) -> bool:
        """Whether this is a copy in a forked child, which has no such thread."""
        return self._process_id != os.getpid()

    def _check(self) -> None:
        if self._is_elsewhere:
            raise RuntimeError("this client belongs to the process that was forked; a child must make its own")
        if self._loop.is_closed():
            raise ServerUnreachable("the connection was closed")
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "this is a callback of the client; a call that waits for the client in it would wait for ever"
            )

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _enter(self) -> Client:
        return await self._context.__aenter__()

    async def _leave(self) -> None:
        await self._context.__aexit__(None, None, None)

    async def _leave_alone(self) -> None:
        try:
            await self._leave()
        finally:
            self._loop.stop()

"""The same without asyncio, for scripts and notebooks.

    with connect("http://127.0.0.1:8000") as hub:
        hub.publish("lab/thermometer", 21.5)
        for change in hub.watch("lab/*"):
            print(change.device_id, change.value)

docs/client.md is the guide.
"""

import asyncio
import os
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from twincast.client import client as asynchronous
from twincast.client import listener
from twincast.client.backoff import TIMEOUT_S
from twincast.client.client import BUFFER_MAX_BYTES, SPOOL_MAX_BYTES
from twincast.client.credential import Token
from twincast.client.events import Backlog, Change, Twin
from twincast.client.link import CLOSE_TIMEOUT_S, Link
from twincast.client.watch import Watch
from twincast.core.model import Position
from twincast.core.subscription import Mode
from twincast.errors import ServerUnreachable

T = TypeVar("T")
C = TypeVar("C", bound=Callable[[Change], None])


class Client:
    """A server, as a script sees it. Made by `connect`; every method may be called from any thread."""

    def __init__(self, hub: asynchronous.Client, background: "_Background") -> None:
        self._hub = hub
        self._background = background
        self._wait = background.wait

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that is followed, as it is now."""
        return self._wait(self._copy_state())

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._hub.position

    @property
    def cursor(self) -> Position | None:
        """Up to where this program is done with what it watches."""
        return self._wait(self._copy_cursor())

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._hub.is_connected

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the spool for the server; None without a spool."""
        return self._hub.backlog

    def publish(self, device_id: str, value: Any) -> int:
        """Send a reading and return its seq once the server has it on disk. See the Hub of twincast.client."""
        return self._wait(self._hub.publish(device_id, value))

    def publish_many(self, readings: Iterable[tuple[str, Any]]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs."""
        return self._wait(self._hub.publish_many(readings))

    def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq."""
        return self._wait(self._hub.control(target, command, args))

    def delete(self, device_id: str) -> int:
        """Delete a device, until a later reading makes it anew; return the seq of that."""
        return self._wait(self._hub.delete(device_id))

    def settle(self) -> None:
        """Wait until the server has answered all that was sent; with a spool, all that is in it."""
        self._wait(self._hub.settle())

    def reached(self, seq: int) -> None:
        """Wait until `state` has everything up to a seq, such as `publish` returned."""
        self._wait(self._hub.reached(seq))

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
        timeout_s: float | None = None,
    ) -> "Changes":
        """Return the changes of devices, to be iterated over, from here on. See the Hub of twincast.client.

        Args:
            devices: patterns; everything if there are none.
            mode: "latest" or "every".
            kinds: "data_update", "control", "deleted"; all if None.
            max_hz: how often a second to be told at most.
            initial: whether to begin with the newest state of each device.
            timeout_s: when to end because no change came; None for never.
        """
        watch = self._hub.watch(*devices, mode=mode, kinds=kinds, max_hz=max_hz, initial=initial)
        self._wait(watch.__aenter__())
        return Changes(watch, self, self._background, timeout_s)

    @overload
    def on_command(self, target: str, *, wait: bool = True) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: Callable[[Change], None], *, wait: bool = True) -> "Obeying": ...

    def on_command(self, target: str, call: Any = None, *, wait: bool = True) -> Any:
        """Call something for each command to a target, in a thread of the client; use it as a decorator too.

        Either way it is live when it returns: a command that is sent then is heard. With `wait=False` it returns at
        once and becomes live by itself, as soon as there is a connection.
        """
        if call is None:
            return partial(self._decorated, target, wait=wait)

        async def in_thread(change: Change) -> None:
            await asyncio.to_thread(call, change)

        async def begin() -> listener.Obeying:
            obeying = self._hub.on_command(target, in_thread)
            return await obeying if wait else obeying

        return Obeying(self._wait(begin()), self._background)

    def _decorated(self, target: str, call: C, *, wait: bool) -> C:
        self.on_command(target, call, wait=wait)
        return call

    async def _copy_cursor(self) -> Position | None:
        return self._hub.cursor

    async def _copy_state(self) -> Mapping[str, Twin]:
        return dict(self._hub.state)


class Changes(Iterator[Change]):
    """Changes that are watched until the loop over them ends, or the context that they are used as."""

    def __init__(self, watch: Watch, hub: Client, background: "_Background", timeout_s: float | None) -> None:
        self._hub = hub  # one that nobody holds any more is closed
        self._watch = watch
        self._background = background
        self._timeout_s = timeout_s
        self._changes: Any = watch.__aiter__()
        self._has_ended = False

    def __next__(self) -> Change:
        if self._has_ended:
            raise StopIteration
        try:
            return self._background.wait(self._next())
        except TimeoutError:
            self.close()
            raise StopIteration from None
        except BaseException as error:
            self._close(type(error), error, error.__traceback__)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close(kind, error, at)

    def __del__(self) -> None:
        if not self._has_ended:  # a loop that was left; wherever garbage is collected, nothing may be waited for
            self._background.begin(self._end(GeneratorExit, None, None))

    def close(self) -> None:
        """Watch no longer; the program is done with the change that it has."""
        self._close(None, None, None)

    def _close(self, *why: Any) -> None:
        if not self._has_ended:
            self._has_ended = True
            with suppress(ServerUnreachable):  # a loop over changes may outlive its hub
                self._background.wait(self._end(*why))

    async def _next(self) -> Change:
        async with asyncio.timeout(self._timeout_s):
            change: Change = await anext(self._changes)
            return change

    async def _end(self, *why: Any) -> None:
        await self._changes.aclose()
        await self._watch.__aexit__(*why)


class Obeying:
    """A callback that commands go to, made by `Hub.on_command`: as long as its hub, its context, or until `end`."""

    def __init__(self, obeying: listener.Obeying, background: "_Background") -> None:
        self._obeying = obeying
        self._background = background

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Call it no more."""
        with suppress(ServerUnreachable):  # it ended with its hub
            self._background.wait(self._obeying.end())


class _Background:
    """A client in an event loop, in a thread of its own, for the process that made it."""

    def __init__(self, context: AbstractAsyncContextManager[asynchronous.Client]) -> None:
        self._context = context
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="twincast client", daemon=True)
        self._thread.start()

    def enter(self) -> asynchronous.Client:
        """Connect. Raises what the context raises, and ends the thread then."""
        try:
            return self.wait(self._enter())
        except BaseException:
            self.close()
            raise

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work in the loop and return what comes of it.

        Raises:
            RuntimeError: it could never be done: this process was forked, or this is the loop's own thread.
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
        """Have work done in the loop, if that still can be, and wait for nothing."""
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
        """Do the same for a client that nobody holds any more, and wait for nothing."""
        if not self._is_elsewhere and not self._loop.is_closed():
            self.begin(self._leave_alone())

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def _is_elsewhere(self) -> bool:
        """Whether this is a copy in a forked child: the thread is its parent's, and nothing would ever be done here."""
        return self._process_id != os.getpid()

    def _check(self) -> None:
        if self._is_elsewhere:
            raise RuntimeError("this client is of the process that was forked; a child makes one of its own")
        if self._loop.is_closed():
            raise ServerUnreachable("the connection was closed")
        if threading.current_thread() is self._thread:
            raise RuntimeError("this is a callback of the client; what waits for the client in it would wait for ever")

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _enter(self) -> asynchronous.Client:
        return await self._context.__aenter__()

    async def _leave(self) -> None:
        await self._context.__aexit__(None, None, None)

    async def _leave_alone(self) -> None:
        try:
            await self._leave()
        finally:
            self._loop.stop()


class _Connecting(AbstractContextManager[Client]):
    def __init__(self, context: AbstractAsyncContextManager[asynchronous.Client]) -> None:
        self._context = context
        self._background: _Background | None = None

    def __enter__(self) -> Client:
        self._background = _Background(self._context)
        hub = Client(self._background.enter(), self._background)
        weakref.finalize(hub, self._background.abandon).atexit = False
        return hub

    def __exit__(self, *_: object) -> None:
        if self._background is not None:
            self._background.leave()


def connect(
    url: str,
    devices: str | Sequence[str] = "*",
    *,
    timeout_s: float | None = TIMEOUT_S,
    buffer_max_bytes: int = BUFFER_MAX_BYTES,
    on_link: Callable[[Link], None] | None = None,
    token: Token = None,
    tls: ssl.SSLContext | None = None,
    fingerprint: str | None = None,
    close_timeout_s: float = CLOSE_TIMEOUT_S,
    wait_max_s: float | None = None,
    since: Position | str | None = None,
    cursor: str | os.PathLike[str] | None = None,
    wait: bool | None = None,
    spool: str | os.PathLike[str] | None = None,
    spool_max_bytes: int = SPOOL_MAX_BYTES,
) -> AbstractContextManager[Client]:
    """Connect to a server for as long as the context lasts. Takes and raises what twincast.client.connect does."""
    return _Connecting(
        asynchronous.connect(
            url,
            devices,
            timeout_s=timeout_s,
            buffer_max_bytes=buffer_max_bytes,
            on_link=on_link,
            token=token,
            tls=tls,
            fingerprint=fingerprint,
            close_timeout_s=close_timeout_s,
            wait_max_s=wait_max_s,
            since=since,
            cursor=cursor,
            wait=wait,
            spool=spool,
            spool_max_bytes=spool_max_bytes,
        )
    )

"""The same client without asyncio, for scripts and notebooks.

    with connect("http://127.0.0.1:8000") as client:
        client.publish("lab/thermometer", 21.5)
        for event in client.watch("lab/*"):
            print(event.device_id, event.value)

docs/client.md is the guide.
"""

import asyncio
import os
import ssl
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from twincast.client import client as asynchronous
from twincast.client import listener, opening
from twincast.client.background import Background
from twincast.client.backoff import TIMEOUT_S
from twincast.client.credential import Token
from twincast.client.encoding import Reading, Time
from twincast.client.events import Command, Event, Twin
from twincast.client.link import CLOSE_TIMEOUT_S, Link
from twincast.client.opening import BUFFER_MAX_BYTES, SPOOL_MAX_BYTES
from twincast.client.outgoing import Backlog
from twincast.client.thread_callback import ThreadCallback
from twincast.client.watch import Watch
from twincast.core.model import Position
from twincast.core.subscription import Mode
from twincast.errors import ServerUnreachable

if TYPE_CHECKING:  # see twincast.client.client
    from twincast.client.history import History, Moment, Question, StateAt

C = TypeVar("C", bound=Callable[[Command], None])


class Client:
    """A client of one server, for scripts. Made by `connect`; every method may be called from any thread."""

    def __init__(self, client: asynchronous.Client, background: Background) -> None:
        self._client = client
        self._background = background
        self._wait = background.wait

    @property
    def state(self) -> Mapping[str, Twin]:
        """A copy of the newest state of every device that is followed."""
        return self._wait(self._copy_state())

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._client.position

    @property
    def cursor(self) -> Position | None:
        """Up to where this program has finished with its events."""
        return self._wait(self._copy_cursor())

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._client.is_connected

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the spool for the server; None without a spool."""
        return self._client.backlog

    def publish(self, device_id: str, value: Any, *, measured_at: Time | None = None) -> int:
        """Send a reading and return its seq once the server has it on disk. See twincast.client.Client."""
        return self._wait(self._client.publish(device_id, value, measured_at=measured_at))

    def publish_many(self, readings: Iterable[Reading]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs."""
        return self._wait(self._client.publish_many(readings))

    def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq."""
        return self._wait(self._client.control(target, command, args))

    def delete(self, device_id: str, *, history: bool = False) -> int:
        """Delete a device, with its history or without; return the seq of that. See twincast.client.Client."""
        return self._wait(self._client.delete(device_id, history=history))

    def history(self, device_id: str | None = None, **question: "Unpack[Question]") -> "History":
        """Return the past of a device, or of several. See twincast.client.Client."""
        return self._wait(self._client.history(device_id, **question))

    def state_at(self, at: "Moment", *devices: str) -> "StateAt":
        """Return the state as it was. See twincast.client.Client."""
        return self._wait(self._client.state_at(at, *devices))

    def settle(self) -> None:
        """Wait until everything that was sent is answered; with a spool, every line in it."""
        self._wait(self._client.settle())

    def reached(self, seq: int) -> None:
        """Wait until `state` has everything up to a seq, such as `publish` returned."""
        self._wait(self._client.reached(seq))

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: str | Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
        timeout_s: float | None = None,
    ) -> "Events":
        """Return the events of devices, to be iterated over, from here on. See twincast.client.Client.

        Args:
            devices: patterns; everything if there are none.
            mode: "latest" or "every".
            kinds: "data_update", "control", "deleted", "late"; all but "late" if None.
            max_hz: how often a second the loop gets events, at most.
            initial: whether to begin with the newest state of each device.
            timeout_s: after so long without an event the loop ends; None for never.
        """
        watch = self._client.watch(*devices, mode=mode, kinds=kinds, max_hz=max_hz, initial=initial)
        self._wait(watch.__aenter__())
        return Events(watch, self, self._background, timeout_s)

    @overload
    def on_command(self, target: str, *, wait: bool = True) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: Callable[[Command], None], *, wait: bool = True) -> "CommandListener": ...

    def on_command(self, target: str, call: Any = None, *, wait: bool = True) -> Any:
        """Call a function for each command to a target, in a thread of the client. Without `call` it is a decorator.

        Either way it is live when this returns: no command that is sent then is missed. With `wait=False` this returns
        at once, and it becomes live by itself, as soon as there is a connection.
        """
        if call is None:
            return partial(self._decorated, target, wait=wait)

        callback = ThreadCallback(call)

        async def begin() -> listener.CommandListener:
            started = self._client.on_command(target, callback)
            return await started if wait else started

        return CommandListener(self._wait(begin()), self._background, callback)

    def _decorated(self, target: str, call: C, *, wait: bool) -> C:
        self.on_command(target, call, wait=wait)
        return call

    async def _copy_cursor(self) -> Position | None:
        return self._client.cursor

    async def _copy_state(self) -> Mapping[str, Twin]:
        return dict(self._client.state)


class Events(Iterator[Event]):
    """The events of a watch, until the loop over them ends, or the context that they are used as."""

    def __init__(self, watch: Watch, client: Client, background: Background, timeout_s: float | None) -> None:
        self._client = client  # a client is closed when nothing refers to it any more
        self._watch = watch
        self._background = background
        self._timeout_s = timeout_s
        self._changes: Any = watch.__aiter__()
        self._has_ended = False

    def __next__(self) -> Event:
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
        if not self._has_ended:  # a loop that was left; a finalizer must not wait
            self._background.begin(self._end(GeneratorExit, None, None))

    def close(self) -> None:
        """Stop watching; the program has finished with the event that it took."""
        self._close(None, None, None)

    def _close(self, *why: Any) -> None:
        if not self._has_ended:
            self._has_ended = True
            with suppress(ServerUnreachable):  # a loop may outlive its client
                self._background.wait(self._end(*why))

    async def _next(self) -> Event:
        async with asyncio.timeout(self._timeout_s):
            event: Event = await anext(self._changes)
            return event

    async def _end(self, *why: Any) -> None:
        await self._changes.aclose()
        await self._watch.__aexit__(*why)


class CommandListener:
    """A callback for commands, made by `Client.on_command`: it ends with its client, its context, or with `end`."""

    def __init__(self, started: listener.CommandListener, background: Background, callback: ThreadCallback) -> None:
        self._listener = started
        self._background = background
        self._callback = callback

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop listening. A callback that is running has a second to return; if it calls this itself, it goes on."""
        if self._callback.is_here:
            self._background.begin(self._listener.end())
            return
        with suppress(ServerUnreachable):  # it ended with its client
            self._background.wait(self._listener.end())


class _Connecting(AbstractContextManager[Client]):
    def __init__(self, context: AbstractAsyncContextManager[asynchronous.Client]) -> None:
        self._context = context
        self._background: Background | None = None

    def __enter__(self) -> Client:
        self._background = Background(self._context)
        client = Client(self._background.enter(), self._background)
        weakref.finalize(client, self._background.abandon).atexit = False
        return client

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
        opening.connect(
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

"""One connection to a server that keeps itself alive: readings and commands out, changes and the state in."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar, overload

from twincast.client.connection import Connection
from twincast.client.incoming import Incoming
from twincast.client.link import (
    TIMEOUT_S,
    Link,
    Message,
    Token,
)
from twincast.client.outgoing import Outgoing
from twincast.client.watch import Change, Twin, Watch
from twincast.core.model import Position
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.errors import ServerUnreachable

logger = logging.getLogger("twincast.client")

BUFFER_MAX_BYTES = 8 * 1024 * 1024

OnCommand = Callable[[Change], Awaitable[None] | None]
C = TypeVar("C", bound=OnCommand)


class Hub:
    """A server, as a program sees it. Made by `connect`."""

    def __init__(
        self,
        url: str,
        devices: Sequence[str],
        *,
        buffer_max_bytes: int,
        on_link: Callable[[Link], None] | None,
        token: Token = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._incoming = Incoming(Subscription(rules_of(devices, ["data_update"])))
        self._outgoing = Outgoing(buffer_max_bytes)
        self._state = MappingProxyType(self._incoming.followed)
        self._handlers: set[asyncio.Task[None]] = set()
        self.connection = Connection(
            url, self._incoming, self._outgoing, on_link or (lambda _: None), token=token, tls=tls
        )

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that is followed; it keeps itself true."""
        return self._state

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._incoming.position

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._outgoing.is_connected

    async def publish(self, device_id: str, value: Any) -> int:
        """Send a reading and return its seq once the server has it on disk.

        While there is no connection it waits for one. What the server cannot store at the moment is sent again.

        Raises:
            BadMessage: the server refused it, in its own words.
            BufferFull: there is no connection, and as much waits for one as may.
            ServerUnreachable: the hub was closed first; the reading may or may not be stored.
        """
        return await (await self.submit(device_id, value))

    async def submit(self, device_id: str, value: Any) -> asyncio.Future[int]:
        """Take a reading and return at once; the future becomes its seq, or the error that `publish` raises.

        Waits only while as many readings are under way as a connection needs.
        """
        return await self._put({"type": "telemetry", "device_id": device_id, "value": value})

    async def publish_many(self, readings: Iterable[tuple[str, Any]]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs. Raises what `publish` raises."""
        futures = [await self.submit(device_id, value) for device_id, value in readings]
        return list(await asyncio.gather(*futures))

    async def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq. Raises what `publish` raises."""
        message = {"type": "control", "target": target, "command": command, "args": dict(args or {})}
        return await (await self._put(message))

    async def settle(self) -> None:
        """Wait until everything that was submitted has its answer."""
        await self._outgoing.settle()

    async def reached(self, seq: int) -> None:
        """Wait until `state` and the watches have everything up to a seq, such as `publish` returned."""
        await self._incoming.reached(seq)

    def watch(
        self,
        *devices: str,
        mode: Mode = "latest",
        kinds: Iterable[str] | None = None,
        max_hz: float | None = None,
        initial: bool = False,
    ) -> Watch:
        """Return the changes of devices, to be iterated over.

        Args:
            devices: patterns, such as `lab/*`; everything if there are none.
            mode: "latest": what waits for a slow reader merges, device by device. "every": nothing merges; a reader
                that is too slow holds up the connection, and with it the other watches.
            kinds: "data_update", "control", or both.
            max_hz: in mode "latest", how often a second to be told at most.
            initial: whether to begin with the newest state of each device.

        Raises:
            ValidationFailed: one of these is not what it should be.
        """
        subscription = Subscription(rules_of(devices or ("*",), kinds), mode, max_hz)
        return Watch(self.connection, subscription, initial=initial)

    @overload
    def on_command(self, target: str) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: C) -> C: ...

    def on_command(self, target: str, call: Any = None) -> Any:
        """Call something for each command to a target (a pattern), in order; a decorator, if nothing to call is given.

        What it raises is logged; the next command is its next chance.
        """
        if call is None:
            return lambda call: self.on_command(target, call)
        watch = self.watch(target, mode="every", kinds=["control"])
        task = asyncio.create_task(self._handle(watch, call), name=f"commands to {target}")
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        return call

    async def close(self) -> None:
        """End what was started for this hub."""
        for task in self._handlers:
            task.cancel()
        if self._handlers:
            await asyncio.wait(list(self._handlers))
        self.connection.fail(ServerUnreachable("the connection was closed"))

    async def _put(self, message: Message) -> asyncio.Future[int]:
        if self.connection.failed is not None:
            raise self.connection.failed
        return await self._outgoing.put(message)

    async def _handle(self, watch: Watch, call: OnCommand) -> None:
        try:
            async for change in watch:
                try:
                    result = call(change)
                    if result is not None:
                        await result
                except Exception:
                    logger.exception("the callback for commands to %s failed", change.device_id)
        except ServerUnreachable:
            return  # the hub was closed


@asynccontextmanager
async def connect(
    url: str,
    devices: str | Sequence[str] = "*",
    *,
    timeout_s: float | None = TIMEOUT_S,
    buffer_max_bytes: int = BUFFER_MAX_BYTES,
    on_link: Callable[[Link], None] | None = None,
    token: Token = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Hub]:
    """Connect to a server for as long as the context lasts, and again whenever the connection is lost.

    Args:
        url: the server's address, http://… or ws://….
        devices: the patterns of the devices that `Hub.state` follows; () for none, if you only publish.
        timeout_s: how long the first connection may take, attempts repeated; 0 for one attempt, None for ever.
        buffer_max_bytes: how much may wait to be sent while there is no connection.
        on_link: told whenever the connection is there or lost, for programs that show it.
        token: an API key or a JWT, or a function that gets one for each connection, plain or async; what the
            environment variable TWINCAST_TOKEN says, if not given.
        tls: how to check the server's certificate, if not as the system does.

    Raises:
        ServerUnreachable: nobody answers there in time, or somebody who is not a twincast server.
        Unauthenticated: the server asks for a credential, or does not know this one.
        ValueError: `url` is not an address.
    """
    patterns = (devices,) if isinstance(devices, str) else tuple(devices)
    hub = Hub(url, patterns, buffer_max_bytes=buffer_max_bytes, on_link=on_link, token=token, tls=tls)
    running = asyncio.create_task(hub.connection.run(timeout_s), name="client")
    try:
        await hub.connection.wait_ready()
        yield hub
    finally:
        running.cancel()
        await asyncio.wait([running])
        await hub.close()

"""One connection to a server that keeps itself alive: readings and commands out, changes and the state in."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import Raw

from twincast.client.address import http_url
from twincast.client.backoff import TIMEOUT_S
from twincast.client.connection import Connection
from twincast.client.credential import Credential, Token
from twincast.client.encoding import checked, encode_args, encode_value
from twincast.client.events import Backlog, Twin
from twincast.client.incoming import Incoming
from twincast.client.link import CLOSE_TIMEOUT_S, Link, Message, open_link, trust_of
from twincast.client.listener import Obeying, OnCommand
from twincast.client.outgoing import Outgoing, refused
from twincast.client.progress import Progress
from twincast.client.readback import ReadBack
from twincast.client.resumption import Resuming
from twincast.client.watch import Watch
from twincast.core.model import Position
from twincast.core.subscription import Mode, Subscription, rules_of
from twincast.errors import BadMessage, ServerUnreachable

if TYPE_CHECKING:
    from twincast.client.cursor import CursorFile

BUFFER_MAX_BYTES = 8 * 1024 * 1024
SPOOL_MAX_BYTES = 64 * 1024 * 1024
"""By default: a reading a second for a week."""

C = TypeVar("C", bound=OnCommand)


class Client:
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
        fingerprint: str | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        wait_max_s: float | None = None,
        since: Position | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.progress = Progress()
        following = Subscription(rules_of(devices, ["data_update", "deleted"]))
        self._incoming = Incoming(following, self.progress.changed.set)
        self._since = since
        self._outgoing = outgoing or Outgoing(buffer_max_bytes)
        self._state = MappingProxyType(self._incoming.followed)
        self._obeying: list[Obeying] = []
        base, credential = http_url(url), Credential(token)
        trust = trust_of(base, tls, fingerprint)
        opened = partial(open_link, base, credential=credential, trust=trust, close_timeout_s=close_timeout_s)
        told = on_link or (lambda _: None)
        self.connection = Connection(
            base, opened, self._incoming, self._outgoing, told, credential=credential.kind, wait_max_s=wait_max_s
        )
        make = partial(ReadBack, base=base, open_link=opened, credential=credential.kind)
        self.resuming = Resuming(self.connection.watches, self._incoming, self.progress, make, since)

    @property
    def state(self) -> Mapping[str, Twin]:
        """The newest state of every device that is followed; it keeps itself true."""
        return self._state

    @property
    def position(self) -> Position | None:
        """Up to where `state` and the watches have everything."""
        return self._incoming.position

    @property
    def cursor(self) -> Position | None:
        """Up to where this program is done with what it watches: what `connect(since=…)` goes on behind.

        It passes a change when the loop asks for the next one, or the callback has come back; the slowest watch
        decides. Until something is watched it is what `connect` was given; None if that is nothing.
        """
        mark = self.progress.mark
        return self._since if mark is None else mark.position

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._outgoing.is_connected

    @property
    def backlog(self) -> Backlog | None:
        """What waits in the spool for the server; None without a spool."""
        return self._outgoing.backlog

    async def publish(self, device_id: str, value: Any) -> int:
        """Send a reading and return its seq once the server has it on disk.

        While there is no connection it waits for one. What the server cannot store at the moment is sent again.
        With a spool it returns 0 once the reading is on this disk, for it has no seq yet.

        Args:
            device_id: whose reading it is.
            value: what JSON has a form for, see docs/client.md.

        Raises:
            TooLarge: the value, or the message, is larger than this server takes.
            BadMessage: the value has no form in JSON, or the server refused it, in its own words.
            BufferFull: there is no connection, and as much waits for one as may; SpoolFull: so it is in the spool.
            ServerUnreachable: the hub was closed first; the reading may or may not be stored.
            SpoolUnusable: its disk fails.
        """
        return await (await self._begin(device_id, value))

    async def submit(self, device_id: str, value: Any) -> asyncio.Future[int]:
        """Take a reading and return at once; the future becomes its seq, or the error that `publish` raises.

        Waits only while as many readings are under way as a connection needs; with a spool until it is on this disk.

        Raises:
            BufferFull: see `publish`.
            ServerUnreachable: the hub is closed.
        """
        try:
            name, text = checked(device_id, "`device_id`"), encode_value(value)
        except BadMessage as error:
            return refused(error)
        return await self._outgoing.put(_telemetry(name, text), memoryview(text).nbytes)

    async def publish_many(self, readings: Iterable[tuple[str, Any]]) -> list[int]:
        """Send readings, each stored by itself, and return their seqs.

        If some are refused the others are stored all the same; then what `publish` raises is raised for the first.
        """
        futures = [await self._begin(device_id, value) for device_id, value in readings]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, int)]

    async def control(self, target: str, command: str, args: Mapping[str, Any] | None = None) -> int:
        """Send a command to everyone who watches; return its seq. Raises what `publish` raises."""
        names = {"target": checked(target, "`target`"), "command": checked(command, "`command`")}
        return await (await self._outgoing.begin({"type": "control", **names, "args": encode_args(args)}))

    async def delete(self, device_id: str) -> int:
        """Delete a device, until a later reading makes it anew; return the seq of that. What it said stays in the log.

        Raises:
            NotFound: there is no such device.
            BadMessage: what `publish` raises.
        """
        message = {"type": "delete", "device_id": checked(device_id, "`device_id`")}
        return await (await self._outgoing.begin(message, is_barrier=True))

    async def settle(self) -> None:
        """Wait until everything that was submitted has its answer; with a spool, all that is in it."""
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
            kinds: "data_update", "control", "deleted"; all if None.
            max_hz: in mode "latest", how often a second to be told at most.
            initial: whether to begin with the newest state of each device.

        Raises:
            ValidationFailed: one of these is not what it should be.
        """
        subscription = Subscription(rules_of(devices or ("*",), kinds), mode, max_hz)
        return Watch(self.resuming, subscription, initial=initial)

    @overload
    def on_command(self, target: str) -> Callable[[C], C]: ...

    @overload
    def on_command(self, target: str, call: OnCommand) -> Obeying: ...

    def on_command(self, target: str, call: Any = None) -> Any:
        """Call something for each command to a target (a pattern), in order; a decorator, if nothing to call is given.

        `await hub.on_command(target, call)` returns once it is live: a command that is sent then is heard. What is
        decorated becomes live a moment later; `await hub.listening()` waits for that.

        What it raises is logged; the next command is its next chance.
        """
        if call is None:
            return partial(self._decorated, target)
        self._obeying = [earlier for earlier in self._obeying if not earlier.is_over]
        obeying = Obeying(self.watch(target, mode="every", kinds=["control"]), target, call)
        self._obeying.append(obeying)
        return obeying

    async def listening(self) -> None:
        """Wait until every callback that was given to `on_command` is live.

        Raises:
            TwincastError: the server refused one, or there will be no connection any more.
        """
        for obeying in tuple(self._obeying):
            await obeying

    async def close(self) -> None:
        """End what was started for this hub."""
        await asyncio.gather(*(obeying.end() for obeying in self._obeying))
        await self.resuming.close()
        self.connection.fail(ServerUnreachable("the connection was closed"))
        await self._outgoing.close()

    def _decorated(self, target: str, call: C) -> C:
        self.on_command(target, call)
        return call

    async def _begin(self, device_id: str, value: Any) -> asyncio.Future[int]:
        try:
            name, text = checked(device_id, "`device_id`"), encode_value(value)
        except BadMessage as error:
            return refused(error)
        return await self._outgoing.begin(_telemetry(name, text), memoryview(text).nbytes)


def _telemetry(device_id: str, value: Raw) -> Message:
    return {"type": "telemetry", "device_id": device_id, "value": value}


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
    fingerprint: str | None = None,
    close_timeout_s: float = CLOSE_TIMEOUT_S,
    wait_max_s: float | None = None,
    since: Position | str | None = None,
    cursor: str | os.PathLike[str] | None = None,
    wait: bool | None = None,
    spool: str | os.PathLike[str] | None = None,
    spool_max_bytes: int = SPOOL_MAX_BYTES,
) -> AsyncIterator[Client]:
    """Connect to a server for as long as the context lasts, and again whenever the connection is lost.

    Args:
        url: the server's address, http://… or ws://….
        devices: the patterns of the devices that `Client.state` follows; () for none, if you only publish.
        timeout_s: how long the first connection may take, attempts repeated; 0 for one attempt, None for ever.
        buffer_max_bytes: how much may wait to be sent while there is no connection.
        on_link: told whenever the connection is there or lost, for programs that show it.
        token: an API key or a JWT, or a function that gets one for each connection, plain or async; what the
            environment variable TWINCAST_TOKEN says, if not given.
        tls: how to check the server's certificate, if not as the system does.
        fingerprint: of the one server that is trusted, instead of `tls`: what `twincast serve --self-signed` prints, or
            what the environment variable TWINCAST_FINGERPRINT says, if not given.
        close_timeout_s: how long the goodbye may take, over a network that may be dead.
        wait_max_s: up to which bound the waits between attempts double; 15 seconds if None.
        since: a position, `EPOCH:SEQ`; what is watched in the first seconds goes on behind it, see docs/client.md.
        cursor: a file that keeps `Client.cursor`, for the next process to go on there; until it does, `since` counts.
        wait: whether to wait for the first connection; None for that, unless there is a spool. Without, `timeout_s`
            does not count, and what is final is raised by what is called next.
        spool: a file that keeps what is sent until the server has it, for the next process too; see docs/client.md.
        spool_max_bytes: how much may wait there.

    Raises:
        CursorUnusable: another program has the file, or it cannot be used.
        SpoolUnusable: likewise, of the spool.
        ServerUnreachable: nobody answers there in time, or somebody who is not a twincast server.
        Unauthenticated: the server asks for a credential, or does not know this one.
        ValidationFailed: `token` cannot be a credential, `devices` are not patterns, `since` is no position,
            `fingerprint` is none, or `spool_max_bytes` is too little.
        WrongFingerprint: somebody else answers than the server that is trusted; nothing was sent there.
        ValueError: `url` is not an address.
    """
    patterns = (devices,) if isinstance(devices, str) else tuple(devices)
    position = Position.parse(since) if isinstance(since, str) else since
    is_awaited = spool is None if wait is None else wait
    async with _kept(cursor) as file, _spooling(spool, spool_max_bytes, buffer_max_bytes) as outgoing:
        hub = Client(
            url,
            patterns,
            buffer_max_bytes=buffer_max_bytes,
            on_link=on_link,
            token=token,
            tls=tls,
            fingerprint=fingerprint,
            close_timeout_s=close_timeout_s,
            wait_max_s=wait_max_s,
            since=position if file is None else file.position or position,
            outgoing=outgoing,
        )
        if outgoing is not None:
            outgoing.start()
        tasks = [asyncio.create_task(hub.connection.run(timeout_s if is_awaited else None), name="client")]
        if file is not None:
            hub.resuming.is_kept = file.is_kept
            tasks.append(asyncio.create_task(file.keep(hub.progress, hub.resuming), name="client's cursor"))
        try:
            if is_awaited:
                await hub.connection.wait_ready()
            yield hub
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await hub.close()
            if file is not None:
                file.is_kept.set()  # nobody is to wait any longer
                file.note(hub.progress)


@asynccontextmanager
async def _kept(path: str | os.PathLike[str] | None) -> AsyncIterator["CursorFile | None"]:
    if path is None:
        yield None
        return
    from twincast.client.cursor import CursorFile  # noqa: PLC0415  # what only those need who keep a cursor

    file = CursorFile(path)
    try:
        yield file
    finally:
        file.close()


@asynccontextmanager
async def _spooling(
    path: str | os.PathLike[str] | None, max_bytes: int, window_max_bytes: int
) -> AsyncIterator[Outgoing | None]:
    if path is None:
        yield None
        return
    # What only those need who have a spool; not every Python has SQLite.
    from twincast.client.spool_file import SpoolFile  # noqa: PLC0415
    from twincast.client.spooled_outgoing import Spooling  # noqa: PLC0415

    file = await asyncio.to_thread(SpoolFile, path)
    try:
        yield Spooling(file, max_bytes, window_max_bytes)
    finally:
        await asyncio.to_thread(file.close)

"""Opens a client, with its cursor file and its spool if it has them, and closes all of it again."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from twincast.client.backoff import TIMEOUT_S
from twincast.client.client import Client
from twincast.client.credential import Token
from twincast.client.link import CLOSE_TIMEOUT_S, Link
from twincast.client.outgoing import Outgoing
from twincast.core.model import Position
from twincast.later import later

if TYPE_CHECKING:  # not every Python has SQLite, in which spools are
    from twincast.client import cursor as cursors
    from twincast.client import spool_file, spooled_outgoing
else:
    cursors, spool_file = later("twincast.client.cursor"), later("twincast.client.spool_file")
    spooled_outgoing = later("twincast.client.spooled_outgoing")

BUFFER_MAX_BYTES = 8 * 1024 * 1024
SPOOL_MAX_BYTES = 64 * 1024 * 1024
"""By default: a reading a second for a week."""


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
        on_link: called whenever the connection is there or lost, for programs that show it.
        token: an API key or a JWT, or a function, plain or async, that returns one for each connection; the environment
            variable TWINCAST_TOKEN, if not given.
        tls: how to check the server's certificate, if not as the system does.
        fingerprint: of the one server that is trusted, instead of `tls`: `twincast serve --self-signed` prints it; the
            environment variable TWINCAST_FINGERPRINT, if not given.
        close_timeout_s: how long the closing handshake may take, over a network that may be dead.
        wait_max_s: the bound up to which the waits between attempts double; 15 seconds if None.
        since: a position, `EPOCH:SEQ`; watches of the first seconds resume behind it, see docs/client.md.
        cursor: a file that keeps `Client.cursor`, for the next process to resume there; until it does, `since` counts.
        wait: whether to wait for the first connection; None for yes, unless there is a spool. Without it, `timeout_s`
            does not count, and a final error is raised by the next call.
        spool: a file that keeps what is sent until the server has it, also for the next process; see docs/client.md.
        spool_max_bytes: how much may wait there.

    Raises:
        CursorUnusable: another program has the file, or it cannot be used.
        SpoolUnusable: the same, of the spool.
        ServerUnreachable: nothing answers there in time, or something that is not a twincast server.
        Unauthenticated: the server asks for a credential, or does not know this one.
        ValidationFailed: `token` cannot be a credential, `devices` are not patterns, `since` is not a position,
            `fingerprint` is not a fingerprint, or `spool_max_bytes` is too small.
        WrongFingerprint: another server answers than the one that is trusted; nothing was sent to it.
        ValueError: `url` is not an address.
    """
    patterns = (devices,) if isinstance(devices, str) else tuple(devices)
    position = Position.parse(since) if isinstance(since, str) else since
    is_awaited = spool is None if wait is None else wait
    async with _cursor_file(cursor) as file, _spooled(spool, spool_max_bytes, buffer_max_bytes) as outgoing:
        client = Client(
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
        async with _running(client, file, timeout_s=timeout_s, is_awaited=is_awaited):
            yield client


@asynccontextmanager
async def _running(
    client: Client, file: "cursors.CursorFile | None", *, timeout_s: float | None, is_awaited: bool
) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(client.connection.run(timeout_s if is_awaited else None), name="client")]
    if file is not None:
        client.resumption.is_kept = file.is_kept
        tasks.append(asyncio.create_task(file.keep(client.progress, client.resumption), name="client's cursor"))
    try:
        if is_awaited:
            await client.connection.wait_ready()
        yield
    finally:
        await client.stop_listening()  # while there is a connection: a callback that still runs may need it
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await client.close()
        if file is not None:
            file.is_kept.set()  # nothing may wait any longer
            file.note(client.progress)


@asynccontextmanager
async def _cursor_file(path: str | os.PathLike[str] | None) -> AsyncIterator["cursors.CursorFile | None"]:
    if path is None:
        yield None
        return
    file = cursors.CursorFile(path)
    try:
        yield file
    finally:
        file.close()


@asynccontextmanager
async def _spooled(
    path: str | os.PathLike[str] | None, max_bytes: int, window_max_bytes: int
) -> AsyncIterator[Outgoing | None]:
    if path is None:
        yield None
        return
    file = await asyncio.to_thread(spool_file.SpoolFile, path)
    try:
        yield await asyncio.to_thread(spooled_outgoing.SpooledOutgoing, file, max_bytes, window_max_bytes)
    finally:
        await asyncio.to_thread(file.close)

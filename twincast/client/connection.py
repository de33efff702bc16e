"""A connection that keeps itself alive: it comes back after a loss, goes on at the cursor, sends again what waits."""

import asyncio
import itertools
import ssl
from collections.abc import Callable

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from twincast.client.incoming import Incoming
from twincast.client.link import (
    TIMEOUT_S,
    Link,
    Message,
    Token,
    decode,
    encode,
    error_of,
    http_url,
    open_link,
    query_of,
    wait_s,
)
from twincast.client.outgoing import Outgoing
from twincast.client.watch import Watch
from twincast.errors import CredentialExpired, ServerUnreachable, TwincastError

PING_INTERVAL_S, SILENCE_MAX_S = 10.0, 25.0
_PING = encode({"type": "ping"}).decode()


class Connection:
    """What a hub stands on: `incoming` is what it is told, `outgoing` what it sends."""

    def __init__(
        self,
        url: str,
        incoming: Incoming,
        outgoing: Outgoing,
        on_link: Callable[[Link], None],
        *,
        token: Token = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = http_url(url)
        self._token = token
        self._tls = tls
        self.failed: TwincastError | None = None
        """Why there will be no connection any more."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._on_link = on_link
        self._live = asyncio.Event()
        self._attempt = 0
        self._ids = itertools.count(1)
        self._answers: dict[str, Callable[[TwincastError | None], None]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard_s = 0.0

    async def start(self, watch: Watch) -> None:
        """See Feeder."""
        while not await self._started(watch):
            pass  # the connection was lost meanwhile; the next one is asked again

    def end(self, watch: Watch) -> None:
        """See Feeder."""
        self._incoming.remove(watch)
        patterns = self._incoming.no_longer_needed()
        if self._live.is_set() and patterns:
            self._ask({"type": "unsubscribe", "devices": patterns}, lambda _: None)

    async def _started(self, watch: Watch) -> bool:
        await self._live.wait()
        if self.failed is not None:
            raise self.failed
        missing = self._incoming.lacks(watch.subscription)
        if missing is None:
            self._incoming.add(watch)
            return True
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(error: TwincastError | None) -> None:
            if error is None:  # in the very step in which it is read: what comes behind it is the watch's
                self._incoming.add(watch)
            _resolve(started, error)

        *first, last = [{"devices": [text], "kinds": sorted(kinds)} for text, kinds in missing.rules] or [{}]
        for part in first:
            self._ask({"type": "subscribe", **part}, lambda _: None)
        how = {"mode": missing.mode} if missing.max_hz is None else {"mode": missing.mode, "max_hz": missing.max_hz}
        self._ask({"type": "subscribe", **last, **how}, answered)
        try:
            await started
        except ServerUnreachable:
            return False
        return True

    async def run(self, timeout_s: float | None) -> None:
        """Connect, and connect again, until cancelled or refused; `connect` runs this."""
        try:
            await self._stay_connected(timeout_s)
        except TwincastError as error:
            self.fail(error)
        except Exception as error:
            self.fail(TwincastError(f"the client failed: {error!r}"))
            raise

    async def _stay_connected(self, timeout_s: float | None) -> None:
        clock_s = asyncio.get_running_loop().time
        until_s = clock_s() + timeout_s if timeout_s is not None else float("inf")
        self._attempt = 0
        while True:
            try:
                query = query_of(self._incoming.wanted(), self._incoming.position)
                async with open_link(self.url, query, token=self._token, tls=self._tls) as socket:
                    await self._talk(socket)
            except ServerUnreachable as reason:
                if not self._ready.done() and clock_s() >= until_s:
                    raise
                pause_s = wait_s(self._attempt)
                if not self._ready.done():
                    pause_s = min(pause_s, max(0.0, until_s - clock_s()))
                self._attempt += 1
                self._on_link(Link("waiting", reason.message, pause_s))
                await asyncio.sleep(pause_s)

    async def wait_ready(self) -> None:
        """Wait for the first connection."""
        await asyncio.shield(self._ready)

    def _ask(self, message: Message, answered: Callable[[TwincastError | None], None]) -> None:
        message_id = f"ask-{next(self._ids)}"
        self._answers[message_id] = answered
        self._outgoing.ask(encode({**message, "id": message_id}).decode())

    async def _talk(self, socket: ClientConnection) -> None:
        """Converse until the connection is lost.

        Raises:
            ServerUnreachable: it was.
            TwincastError: the server does not want this client as it is.
        """
        lost: Exception = ConnectionError()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._greet(socket)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outgoing.send_all(socket.send), name="client sends")
                group.create_task(self._ping(socket), name="client pings")
                await self._read(socket)
        except* (ConnectionClosed, TimeoutError) as errors:
            lost = errors.exceptions[0]
        finally:
            self._disconnected()
        closed = lost.rcvd if isinstance(lost, ConnectionClosed) else None
        message = f"the connection was lost{f': {closed.reason}' if closed and closed.reason else ''}"
        if closed is None or not 4500 <= closed.code <= 4999:
            raise ServerUnreachable(message)
        if closed.code == CredentialExpired.close_code:
            # Whoever gets a credential for each connection goes on with the next one, at the cursor.
            raise ServerUnreachable(message) if callable(self._token) else CredentialExpired(closed.reason)
        raise TwincastError(message)

    async def _greet(self, socket: ClientConnection) -> None:
        is_whole = False
        while not is_whole:
            try:
                message = decode(await socket.recv())
            except msgspec.DecodeError:
                message = {}
            if message.get("type") == "error":
                raise error_of(message["code"], message["message"])
            if message.get("type") not in {"hello", "snapshot"}:
                raise ServerUnreachable(f"what answers at {self.url} is not a twincast server")
            is_whole = await self._incoming.take(message)
        self._attempt = 0
        self._outgoing.connected()
        self._live.set()
        self._on_link(Link("live"))
        _resolve(self._ready, None)

    async def _read(self, socket: ClientConnection) -> None:
        clock_s = asyncio.get_running_loop().time
        while True:
            self._heard_s = clock_s()
            text = await socket.recv()
            self._heard_s = float("inf")  # while somebody takes his time with a change, silence means nothing
            message = decode(text)
            message_id = message.get("id")
            if isinstance(message_id, int):
                self._outgoing.answer(message)
            elif message_id is not None:
                refused = message["type"] == "error"
                error = error_of(message["code"], message["message"]) if refused else None
                answered = self._answers.pop(message_id, None)
                if answered is not None:
                    answered(error)
            else:
                await self._incoming.take(message)

    async def _ping(self, socket: ClientConnection) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            if asyncio.get_running_loop().time() - self._heard_s > SILENCE_MAX_S:
                raise TimeoutError
            await socket.send(_PING)

    def _disconnected(self) -> None:
        self._live.clear()
        self._outgoing.disconnected()
        answers, self._answers = self._answers, {}
        for answered in answers.values():
            answered(ServerUnreachable("the connection was lost"))

    def fail(self, error: TwincastError) -> None:
        """End everything that waits with an error."""
        self.failed = error
        self._live.set()  # nobody is to wait any longer
        _resolve(self._ready, error)
        self._outgoing.fail(error)
        self._incoming.fail(error)


def _resolve(future: asyncio.Future[None], error: TwincastError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()

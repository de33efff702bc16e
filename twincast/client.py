"""Talk to a server from Python: readings and commands out, everything that is cast in.

    async with connect("http://127.0.0.1:8000") as hub:
        await hub.publish("lab/thermometer", 21.5)  # returns once it is on the server's disk
        async for message in hub:
            print(message)

`Rest` does the same by single requests, without asyncio.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from twincast import errors
from twincast.errors import ServerUnreachable, TwincastError

IN_FLIGHT_MAX = 1_024
"""How many readings one connection sends ahead of their acknowledgements: enough to fill the server's commits."""
MESSAGES_MAX = 4_096
"""How many messages wait for a slow reader here; more wait at the server, which merges them."""
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 15.0
TIMEOUT_S = 10.0

Message = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def http_url(url: str) -> str:
    """Return a server's address for REST, whichever way it was written.

    Raises:
        ValueError: it is not an address of a server.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"expected a server's address such as http://127.0.0.1:8000, not {url!r}")
    return urlunsplit((scheme, parts.netloc, "", "", ""))


class Hub:
    """One WebSocket connection to a server. Made by `connect`."""

    def __init__(self, socket: ClientConnection, hello: Message, *, listen: bool) -> None:
        self.hello = hello
        """The server's first message; `data_snapshot` in it is the state of every device."""
        self._socket = socket
        self._listen = listen
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(MESSAGES_MAX)
        self._unanswered: dict[int, asyncio.Future[int]] = {}
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ids = itertools.count(1)
        self._lost: ServerUnreachable | None = None

    async def publish(self, device_id: str, value: Any) -> int:
        """Send a reading and return its seq once the server has it on disk.

        Raises:
            TwincastError: the server refused it, in its own words.
            ServerUnreachable: the connection was lost first; the reading may or may not be stored.
        """
        return await (await self.submit(device_id, value))

    async def submit(self, device_id: str, value: Any) -> asyncio.Future[int]:
        """Send a reading and return at once; the future becomes its seq, or the error that `publish` raises.

        Waits only while `IN_FLIGHT_MAX` messages are unanswered.
        """
        return await self._send({"type": "telemetry", "device_id": device_id, "value": value})

    async def control(self, target: str, command: str, args: Message | None = None) -> int:
        """Send a command to everyone who watches; return its seq. Raises what `publish` raises."""
        return await (await self._send({"type": "control", "target": target, "command": command, "args": args or {}}))

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield every message that is cast, the own ones too, until the connection ends.

        Raises:
            ServerUnreachable: the connection was lost.
        """
        while (message := await self._messages.get()) is not None:
            yield message
        if self._lost is not None:
            raise self._lost

    async def settle(self) -> None:
        """Wait until everything that was submitted has its answer."""
        if self._unanswered:
            await asyncio.wait(list(self._unanswered.values()))

    async def read(self) -> None:
        """Take in what the server sends until the connection ends; `connect` runs this."""
        try:
            async for text in self._socket:
                await self._take(_decode(text))
            self._lost = ServerUnreachable("the server ended the connection")
        except ConnectionClosed as closed:
            reason = f": {closed.rcvd.reason}" if closed.rcvd and closed.rcvd.reason else ""
            self._lost = ServerUnreachable(f"the connection was lost{reason}")
        finally:
            for future in self._unanswered.values():
                if not future.done():
                    future.set_exception(self._lost or ServerUnreachable("the connection was closed"))
                    future.exception()  # nobody has to wait for it
            self._unanswered.clear()
            if self._listen:
                await self._messages.put(None)

    async def _send(self, message: Message) -> asyncio.Future[int]:
        await self._room.acquire()
        if self._lost is not None:
            raise self._lost
        message_id = next(self._ids)
        future = self._unanswered[message_id] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._room.release())
        try:
            await self._socket.send(_encode({**message, "id": message_id}).decode())
        except ConnectionClosed:
            raise ServerUnreachable("the connection was lost") from None
        return future

    async def _take(self, message: Message) -> None:
        future = self._unanswered.pop(message["id"], None) if "id" in message else None
        if future is None:
            if self._listen:
                await self._messages.put(message)
        elif future.done():  # its caller gave up
            return
        elif message["type"] == "ack":
            future.set_result(message["seq"])
        else:
            future.set_exception(error_of(message["code"], message["message"]))


@asynccontextmanager
async def connect(url: str, *, listen: bool = True) -> AsyncIterator[Hub]:
    """Connect to a server for as long as the context lasts.

    Args:
        url: the server's address, http://… or ws://….
        listen: whether the messages that are cast will be iterated over; if not, they are thrown away.

    Raises:
        ServerUnreachable: nobody answers there, or somebody who is not a twincast server.
    """
    base = http_url(url)
    address = f"ws{base.removeprefix('http')}/ws"
    try:
        socket = await open_websocket(address, compression=None, max_size=None, open_timeout=TIMEOUT_S, proxy=None)
    except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as error:
        raise _unreachable(base, error) from None
    try:
        hello = _decode(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
        if hello.get("type") != "hello":
            raise ServerUnreachable(f"what answers at {base} is not a twincast server")
        hub = Hub(socket, hello, listen=listen)
        reader = asyncio.create_task(hub.read(), name="client reads")
        try:
            yield hub
        finally:
            reader.cancel()
            await asyncio.wait([reader])
    except (ConnectionClosed, TimeoutError, msgspec.DecodeError) as error:
        raise _unreachable(base, error) from None
    finally:
        await socket.close()


async def connections(
    url: str, *, listen: bool = True, waiting: Callable[[ServerUnreachable, float], None] | None = None
) -> AsyncIterator[Hub]:
    """Yield a connection, and a new one whenever the caller comes back for it because the last was lost.

    Between attempts it waits for a random part of a bound that doubles ("full jitter"), so that a fleet does not
    return all at once.

    Args:
        url: the server's address.
        listen: see `connect`.
        waiting: told why, and for how many seconds, before each wait.
    """
    attempt = 0
    while True:
        try:
            async with connect(url, listen=listen) as hub:
                attempt = 0
                yield hub
            reason = ServerUnreachable("the connection was lost")
        except ServerUnreachable as error:
            reason = error
        wait_s = random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt))
        attempt += 1
        if waiting is not None:
            waiting(reason, wait_s)
        await asyncio.sleep(wait_s)


class Rest:
    """A server's REST calls, for programs that need no stream. Use as a context, or call `close`."""

    def __init__(self, url: str) -> None:
        self.url = http_url(url)
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def status(self) -> Message:
        """Return how the server is: `ok`, how many devices and clients, its position, its version.

        Raises:
            ServerUnreachable: nobody answers, or not a twincast server. Every other call raises it too.
        """
        return self._call("GET", "/api/status")

    def data(self) -> Message:
        """Return the newest state of every device, under `data`."""
        return self._call("GET", "/api/data")

    def publish(self, device_id: str, value: Any) -> Message:
        """Store a reading and return its event, once it is on the server's disk.

        Raises:
            TwincastError: the server refused it, in its own words.
        """
        event: Message = self._call("POST", "/api/data", {"device_id": device_id, "value": value})["event"]
        return event

    def publish_all(self, readings: Iterable[tuple[str, Any]]) -> range:
        """Store up to 10,000 readings, all or none, and return their seqs. Raises what `publish` raises."""
        body = [{"device_id": device_id, "value": value} for device_id, value in readings]
        answer = self._call("POST", "/api/data", body)
        return range(answer["first_seq"], answer["last_seq"] + 1)

    def control(self, target: str, command: str, args: Message | None = None) -> Message:
        """Send a command to everyone who watches, and return its event. Raises what `publish` raises."""
        body = {"target": target, "command": command, "args": args or {}}
        event: Message = self._call("POST", "/api/control", body)["event"]
        return event

    def _call(self, method: str, path: str, body: Any = None) -> Message:
        content = None if body is None else _encode(body)
        try:
            response = self._http.request(method, path, content=content, headers={"Content-Type": "application/json"})
            answer = _decode(response.content)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise _unreachable(self.url, error) from None
        if response.is_success:
            return answer
        raise error_of(str(answer.get("code")), str(answer.get("detail", f"HTTP status {response.status_code}")))


def error_of(code: str, message: str) -> TwincastError:
    """Return the error that a server means by a code; a plain TwincastError for one that this version does not know."""
    kind = _KINDS.get(code)
    return kind(message) if kind else TwincastError(f"{code}: {message}")


def _kinds(kind: type[TwincastError]) -> Iterable[type[TwincastError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


_KINDS = {kind.code: kind for kind in _kinds(errors.TwincastError)}


def _unreachable(base: str, error: Exception) -> ServerUnreachable:
    if isinstance(error, (httpx.ConnectError, ConnectionRefusedError)) or "Connect call failed" in str(error):
        return ServerUnreachable(f"nobody answers at {base}; `twincast serve` starts a server there")
    return ServerUnreachable(f"what answers at {base} does not speak like a twincast server: {error}")

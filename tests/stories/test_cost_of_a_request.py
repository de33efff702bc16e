"""What one request costs: writes, calls and readings of addresses are counted, on a connection without a socket."""

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from uvicorn.server import ServerState

from tests.running import ROOT
from tests.server.transport import RecordingTransport
from twincast.access import addresses
from twincast.app import create_app
from twincast.server.http import BoundedHttp
from twincast.server.process import _http_bounds, configured
from twincast.settings import Settings

HOST = b"Host: 127.0.0.1:8000\r\n"
BODY = b'{"device_id":"lab/lamp","value":{"on":true}}'
POST = b"POST /api/data HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (HOST, len(BODY))
STREAM = b"GET /api/events HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n"

PACKAGE = ROOT / "twincast"
CALLS_MAX = 78
"""Of Python functions, for a reading that shares its commit with others."""


class Client:
    """One connection to an application that runs in this loop."""

    def __init__(self, make: Callable[[], BoundedHttp]) -> None:
        self._make = make
        self.transport = RecordingTransport()
        self.protocol = make()
        self.protocol.connection_made(self.transport)

    async def ask(self, request: bytes) -> list[bytes]:
        """Send a request, and return what is written as its answer, by writes."""
        self.transport.writes.clear()
        self.protocol.data_received(request)
        while self.protocol.idle_until_s is None:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0)
        return list(self.transport.writes)

    def another(self) -> "Client":
        """Return a further connection to the same application."""
        return Client(self._make)


@asynccontextmanager
async def client_of(journal: str) -> AsyncIterator[Client]:
    settings = Settings(journal=journal)
    app = create_app(settings)

    @app.get("/of-the-user")
    async def of_the_user() -> dict[str, bool]:
        return {"mine": True}

    config = configured(app, None)
    config.load()
    async with app.router.lifespan_context(app) as state:
        given: dict[str, Any] = {**(state or {}), "http_bounds": _http_bounds(settings)}
        client = Client(partial(BoundedHttp, config, ServerState(), given))
        yield client
        client.protocol.connection_lost(None)


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), HOST)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + BODY, 200),
        (POST + b"x" * len(BODY), 422),
        (get("/api/data"), 200),
        (get("/api/data/lab%2Flamp"), 200),
        (get("/api/events?since=0"), 422),
        (get("/api/events"), 200),
        (get("/api/status"), 200),
        (get("/metrics"), 200),
        (get("/healthz"), 200),
        (get("/nothing"), 404),
        (get("/of-the-user"), 200),
        (get("/openapi.json"), 200),
        (get("/api/status").replace(b"127.0.0.1", b"evil.example"), 403),
        (b"HEAD /api/status HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"OPTIONS /api/data HTTP/1.1\r\n" + HOST + b"\r\n", 204),
    ],
    ids=lambda value: value.split(b" HTTP", 1)[0].decode() if isinstance(value, bytes) else str(value),
)
async def test_an_answer_is_one_write(request_: bytes, status: int) -> None:
    async with client_of("memory:") as client:
        await client.ask(POST + BODY)
        [written] = await client.ask(request_)
        assert written.startswith(b"HTTP/1.1 %d " % status)


async def test_an_event_stream_begins_with_one_write() -> None:
    async with client_of("memory:") as client:
        client.protocol.data_received(STREAM)
        while not client.transport.writes:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert b"200 OK" in client.transport.writes[0] and b"\r\n\r\n" in client.transport.writes[0]
        assert b"retry: " in client.transport.writes[0]


async def test_the_address_of_a_connection_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = addresses.parse_bare

    def counted(text: str) -> addresses.Address | None:
        if text == "127.0.0.1":
            read.append(text)
        return parse(text)

    monkeypatch.setattr(addresses, "parse_bare", counted)
    for name in ("peer_of", "block_of"):  # nobody else has been here
        monkeypatch.setattr(addresses, name, lru_cache(getattr(addresses, name).__wrapped__))
    async with client_of("memory:") as client:
        await client.ask(POST + BODY)
        after_one = len(read)
        for request in (POST + BODY, get("/api/data"), get("/api/status")) * 50:
            await client.ask(request)
        assert len(read) == after_one


async def calls_of(clients: list[Client]) -> int:
    """Count the calls of Python functions, of twincast and uvicorn, for a reading of each of some clients at once."""
    calls = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        path = Path(frame.f_code.co_filename)
        calls += event == "call" and (path.is_relative_to(PACKAGE) or "uvicorn" in path.parts)

    sys.setprofile(note)
    try:
        await asyncio.gather(*(client.ask(POST + BODY) for client in clients))
    finally:
        sys.setprofile(None)
    return calls


async def test_a_further_reading_costs_few_calls() -> None:
    async with client_of("memory:") as first:
        clients = [first, *(first.another() for _ in range(10))]
        for some in (clients, [first], clients):
            calls = await calls_of(some)
        assert (calls - await calls_of([first])) / 10 <= CALLS_MAX


async def test_a_connection_that_has_ended_is_free_without_the_garbage_collector() -> None:
    async with client_of("memory:") as client:
        other = client.another()
        await other.ask(POST + BODY)
        other.protocol.connection_lost(None)
        left = weakref.ref(other.protocol)
        await asyncio.sleep(0)
        gc.disable()
        try:
            del other
            assert left() is None
        finally:
            gc.enable()

"""What ends a connection, or an attempt at one, and what the client does then: the table that both clients pass."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.credentials import certificate
from tests.running import eventually_async, free_port
from twincast.client import Link, connect
from twincast.client import backoff as waits
from twincast.client.backoff import Backoff
from twincast.errors import TwincastError

TABLE = json.loads((Path(__file__).parent / "link_rules.json").read_text())
HELLO = {
    "type": "hello",
    "message": "connected",
    "timestamp_utc": "2026-11-23T16:24:00.123456+00:00",
    "epoch": "epoch-1",
    "seq": 1,
    "resumed": False,
    "subscription": {},
    "data_snapshot": {},
}
SHORT_S = 0.01
RAISED: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (OSError, RuntimeError, ValueError, KeyError, TimeoutError, asyncio.CancelledError, httpx.HTTPError)
}
Row = dict[str, Any]


@pytest.mark.parametrize("row", TABLE["backoff"]["rows"], ids=lambda row: row["what"])
def test_the_bound_of_a_wait_doubles_and_begins_anew_once_a_connection_has_held(row: Row) -> None:
    backoff = Backoff(part=lambda: 1.0)
    assert [backoff.wait_s(held_s) for held_s in row["held_s"]] == row["bounds_s"]


def test_a_wait_is_a_random_part_of_its_bound_from_none_to_all() -> None:
    assert tuple(TABLE["backoff"][name] for name in ("first_s", "max_s", "held_s")) == (
        waits.FIRST_S,
        waits.MAX_S,
        waits.HELD_S,
    )
    assert Backoff(part=lambda: 0.0).wait_s() == 0.0
    spread = [Backoff().wait_s() for _ in range(200)]
    assert 0 <= min(spread) < 0.1
    assert 0.4 < max(spread) <= 0.5


@pytest.mark.parametrize("row", TABLE["ends"], ids=lambda row: row["what"])
async def test_an_end_is_final_or_tried_again_as_the_table_says(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TWINCAST_TOKEN", raising=False)
    monkeypatch.setattr("twincast.client.backoff.FIRST_S", SHORT_S)
    monkeypatch.setattr("twincast.client.backoff.HELD_S", 0.0 if row.get("held_s", 0) >= waits.HELD_S else 3600.0)
    monkeypatch.setattr("twincast.client.connection.Backoff", lambda _: Backoff(part=lambda: 1.0))
    if row.get("failure") in {"silent", "silent_hello"}:
        monkeypatch.setattr("twincast.client.link.TIMEOUT_S", 0.05)
        monkeypatch.setattr("twincast.client.connection.TIMEOUT_S", 0.05)
    async with ending(row, tmp_path) as url:
        error, waited_s = await outcome(url, row)
    if row["outcome"] == "final":
        assert error is not None, "it is final"
        assert row["error"] is None or error.code == row["error"]
    else:
        assert error is None, "it is tried again"
        assert waited_s[:2] == [SHORT_S, SHORT_S * (2 if row["delay"] == "grows" else 1)]


async def outcome(url: str, row: Row) -> tuple[TwincastError | None, list[float]]:
    """Return what ended the client, if anything did before it had waited twice; and its waits."""
    waited_s: list[float] = []

    def on_link(link: Link) -> None:
        if link.phase == "waiting":
            assert link.reason
            waited_s.append(link.wait_s)
        if row.get("on_link_raises"):
            raise ValueError("a fault of the program")

    async def client() -> None:
        async with connect(url, timeout_s=None, token=token_of(row), on_link=on_link) as client:
            async for _ in client.watch(kinds=["data_update"]):
                raise AssertionError("nothing is published, so this ends as the connection does")

    task = asyncio.create_task(client())
    await eventually_async(lambda: task.done() or len(waited_s) > 1, "it ends, or has waited twice")
    task.cancel()
    [result] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, TwincastError | asyncio.CancelledError), result
    return result if isinstance(result, TwincastError) else None, waited_s


def token_of(row: Row) -> Any:
    calls = 0

    def get() -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 and "token_raises" in row:
            raise RAISED[row["token_raises"]]("for a moment")
        return row["token_gives"] if calls == 2 and "token_gives" in row else "a-key"

    return {"none": None, "fixed": "a-key", "function": get}[row.get("token", "fixed")]


@contextlib.asynccontextmanager
async def ending(row: Row, folder: Path) -> AsyncIterator[str]:
    """Be a server that ends each connection as a row says, and return its address."""
    if "failure" in row:
        async with failing(row["failure"], folder) as url:
            yield url
    else:
        async with serve(
            lambda link: conversation(link, row), "127.0.0.1", 0, process_request=answering(row)
        ) as server:
            yield f"http://127.0.0.1:{port_of(server)}"


def port_of(server: Any) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def answering(row: Row) -> Callable[[ServerConnection, Request], Response | None]:
    def answer(_: ServerConnection, __: Request) -> Response | None:
        if "status" not in row:
            return None
        problem = {"code": row["code"], "detail": "words"} if row["code"] else "<html>no</html>"
        body = json.dumps(problem).encode() if row["status"] != HTTPStatus.NO_CONTENT else b""
        headers = Headers({"Content-Length": str(len(body)), "Location": "https://elsewhere.example/ws?secret=1"})
        return Response(row["status"], "words", headers, body)

    return answer


async def conversation(link: ServerConnection, row: Row) -> None:
    for text in row.get("first", [json.dumps(HELLO)]):
        await link.send(text)
    code = row.get("close", 1001)
    if code is None:
        await link.wait_closed()
    elif code == 1006:
        link.transport.abort()
    elif code == 1005:
        async with link.send_context():
            link.protocol.send_close()
    else:
        await link.close(code, f"{row.get('error') or 'some_code'}: words")


@contextlib.asynccontextmanager
async def failing(failure: str, folder: Path) -> AsyncIterator[str]:
    """Be what fails an attempt before it is answered, and return its address."""
    if failure == "refused":
        yield f"http://127.0.0.1:{free_port()}"
        return
    if failure == "dns":
        yield "http://nobody.invalid:8000"
        return
    host = "127.0.0.2" if failure == "other_name" else "127.0.0.1"
    tls: ssl.SSLContext | None = None
    if failure in {"untrusted", "other_name"}:
        cert, key = certificate(folder)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert, key)
    if failure == "silent_hello":
        async with serve(lambda link: link.wait_closed(), host, 0) as silent:
            yield f"http://{host}:{port_of(silent)}"
        return
    async with await asyncio.start_server(lambda r, w: misbehaving(failure, r, w), host, 0, ssl=tls) as server:
        scheme = "https" if failure in {"untrusted", "other_name", "not_tls"} else "http"
        yield f"{scheme}://{host}:{port_of(server)}"


async def misbehaving(failure: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        if failure == "silent":
            await reader.read()
        elif failure in {"not_http", "not_tls"}:
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            await writer.drain()
        elif failure == "reset":
            await reader.read(1)
            linger = b"\1\0\0\0\0\0\0\0"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

"""What an ASGI application is given, and what becomes of what it sends."""

import asyncio
from typing import Any

import pytest

from tests.server.transport import RecordingTransport
from twincast.server.exchange import JOINED_MAX_BYTES, UNTAKEN_MAX_BYTES, Exchange
from twincast.server.flow import Flow
from twincast.transports.asgi import Receive, Scope, Send

LENGTH = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]}
CHUNKS = {"type": "http.response.start", "status": 200, "headers": []}


class Connection:
    """A connection for one exchange, and what it was told."""

    def __init__(self) -> None:
        self.written = RecordingTransport()
        self.transport: asyncio.Transport = self.written
        self.flow = Flow(self.transport)
        self.answers = 0

    def on_answer(self, *, keep_alive: bool) -> None:
        self.answers += 1
        if not keep_alive:
            self.close()

    def close(self) -> None:
        self.transport.close()

    def exchange(self, method: str = "GET", version: str = "1.1", *, wants_continue: bool = False) -> Exchange:
        scope = {"type": "http", "method": method, "http_version": version}
        keep_alive = version == "1.1"
        return Exchange(scope, self, [(b"date", b"now")], keep_alive=keep_alive, wants_continue=wants_continue)


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_head_waits_for_the_body_and_both_go_in_one_write() -> None:
    for size in (3, JOINED_MAX_BYTES + 1):
        connection = Connection()
        exchange = connection.exchange()
        await exchange.send({**LENGTH, "headers": [(b"content-length", b"%d" % size)]})
        assert connection.written.writes == [] and not exchange.has_begun
        await exchange.send(body(b"x" * size))
        [written] = connection.written.writes
        assert written.startswith(b"HTTP/1.1 200 OK\r\ndate: now\r\n") and written.endswith(b"\r\n\r\n" + b"x" * size)
        assert exchange.is_answered and connection.answers == 1 and not connection.written.is_closed


async def test_a_stream_is_written_piece_by_piece() -> None:
    connection = Connection()
    exchange = connection.exchange()
    for event in (CHUNKS, body(b"ab", more=True), body(b"", more=True), body(b"c"), None):
        if event is not None:
            await exchange.send(event)
    head, *rest = connection.written.written.split(b"\r\n\r\n", 1)
    assert b"transfer-encoding: chunked" in head
    assert rest == [b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]


async def test_http_1_0_has_no_chunks_and_ends_with_its_connection() -> None:
    connection = Connection()
    exchange = connection.exchange(version="1.0")
    for event in (CHUNKS, body(b"ab", more=True), body(b"c")):
        await exchange.send(event)
    assert connection.written.written.endswith(b"\r\nconnection: close\r\n\r\nabc")
    assert connection.written.is_closed


@pytest.mark.parametrize("start", [LENGTH, CHUNKS], ids=["with a length", "without"])
async def test_the_answer_to_head_is_its_head(start: dict[str, Any]) -> None:
    connection = Connection()
    exchange = connection.exchange("HEAD")
    for event in (start, body(b"ab", more=True), body(b"c")):
        await exchange.send(event)
    assert connection.written.written.endswith(b"\r\n\r\n") and exchange.is_answered


@pytest.mark.parametrize("events", [[body(b"abc")], [LENGTH, LENGTH], [LENGTH, body(b"abcd")], [LENGTH, body(b"a")]])
async def test_an_answer_out_of_order_or_of_another_length_is_an_error(events: list[dict[str, Any]]) -> None:
    exchange = Connection().exchange()
    with pytest.raises(RuntimeError):
        for event in events:
            await exchange.send(event)


async def test_nothing_is_sent_behind_an_answer_or_to_nobody() -> None:
    connection = Connection()
    exchange = connection.exchange()
    for event in (LENGTH, body(b"abc")):
        await exchange.send(event)
    with pytest.raises(RuntimeError):
        await exchange.send(body(b""))
    left = connection.exchange()
    left.disconnect()
    await left.send(LENGTH)
    await left.send(body(b"abc"))
    assert len(connection.written.writes) == 1
    assert await left.receive() == await exchange.receive() == {"type": "http.disconnect"}


async def test_a_body_that_is_complete_comes_at_once_and_one_that_is_not_is_waited_for() -> None:
    exchange = Connection().exchange("POST")
    exchange.add(b"a")
    exchange.add(b"b")
    assert await exchange.receive() == {"type": "http.request", "body": b"ab", "more_body": True}
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    exchange.add(b"c")
    exchange.end()
    assert await asyncio.wait_for(waiting, 10) == {"type": "http.request", "body": b"c", "more_body": False}
    leaving = [asyncio.create_task(exchange.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    leaving.pop().cancel()
    await asyncio.sleep(0)
    assert not leaving[0].done()
    exchange.disconnect()
    assert await asyncio.wait_for(leaving[0], 10) == {"type": "http.disconnect"}


async def test_a_body_that_is_not_taken_is_not_read_on() -> None:
    connection = Connection()
    exchange = connection.exchange("POST")
    exchange.add(b"x" * UNTAKEN_MAX_BYTES)
    assert connection.written.reading == []
    exchange.add(b"x")
    assert connection.written.reading == ["pause"]
    assert len((await exchange.receive())["body"]) == UNTAKEN_MAX_BYTES + 1
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    assert connection.written.reading == ["pause", "resume"]
    exchange.disconnect()
    await waiting


async def test_who_waits_to_be_told_is_told_once_and_not_behind_the_answer() -> None:
    connection = Connection()
    exchange = connection.exchange("POST", wants_continue=True)
    exchange.end()
    for _ in range(2):
        asyncio.get_running_loop().call_soon(exchange.end)
        await exchange.receive()
    assert connection.written.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    other = Connection()
    exchange = other.exchange("POST", wants_continue=True)
    await exchange.send(LENGTH)
    await exchange.send(body(b"abc"))
    await exchange.receive()
    assert b"100 Continue" not in other.written.written


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError


async def _raises_behind_a_head(scope: Scope, receive: Receive, send: Send) -> None:
    await send(LENGTH)
    raise ValueError


async def _says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize("app", [_raises, _raises_behind_a_head, _says_nothing])
async def test_an_application_that_fails_before_it_answers_is_answered_for(app: Any) -> None:
    connection = Connection()
    await connection.exchange().run(app)
    [written] = connection.written.writes
    assert written.startswith(b"HTTP/1.1 500 ") and b"connection: close" in written
    assert connection.written.is_closed


async def test_an_answer_that_is_left_unfinished_ends_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(CHUNKS)
        await send(body(b"a", more=True))

    connection = Connection()
    await connection.exchange().run(app)
    assert connection.written.is_closed and b"0\r\n\r\n" not in connection.written.written


async def test_an_answer_waits_while_the_connection_is_full() -> None:
    connection = Connection()
    exchange = connection.exchange()
    connection.flow.pause_writing()
    sending = asyncio.create_task(exchange.send(LENGTH))
    await asyncio.sleep(0)
    assert not sending.done()
    connection.flow.resume_writing()
    await asyncio.wait_for(sending, 10)

"""One client in a hundred stops reading: it costs nobody anything, and it is up to date as soon as it reads again."""

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import StartServer
from tests.raw_websocket import RawWebSocket
from tests.running import DEADLINE_S, ServerProcess

READERS = 99
DEVICES = 25
UPDATES = 4_000
UPDATES_A_COMMAND = 200
VALUE_BYTES = 3_000
EVENT_MARK = b'{"type":"data_update"'


class CountingReader(asyncio.Protocol):
    """A client that reads whatever comes and counts the events in it."""

    def __init__(self, port: int, awaited: int) -> None:
        self.greeted = asyncio.Event()
        self.done = asyncio.Event()
        self.events = 0
        self._port = port
        self._awaited = awaited
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        text = self._tail + data
        if b'"hello"' in text:
            self.greeted.set()
        self.events += text.count(EVENT_MARK)
        self._tail = text[1 - len(EVENT_MARK) :]
        if self.events >= self._awaited:
            self.done.set()


class StalledReader(RawWebSocket):
    """A client with a small receive buffer that reads only when it is told to."""

    def __init__(self, port: int) -> None:
        super().__init__(port, receive_buffer_bytes=16 * 1024)

    def read_until(self, seq: int) -> list[Any]:
        messages: list[Any] = []
        while not messages or messages[-1].get("seq", 0) < seq:
            messages.append(self.read_message())
        return messages


def _itself(reader: CountingReader) -> CountingReader:
    return reader


def telemetry(number: int) -> str:
    value = {"number": number, "padding": "x" * VALUE_BYTES}
    return json.dumps({"type": "telemetry", "id": number, "device_id": f"d{number % DEVICES}", "value": value})


def control(number: int) -> str:
    return json.dumps({"type": "control", "id": -number - 1, "target": "t", "command": f"c{number}"})


async def publish(socket: ClientConnection) -> int:
    """Send every update and command, never more than 64 of them unanswered; return the last seq."""
    room = asyncio.Semaphore(64)
    seq = 0

    async def read() -> None:
        nonlocal seq
        unanswered = UPDATES + UPDATES // UPDATES_A_COMMAND
        while unanswered:
            message = json.loads(await socket.recv())
            assert message["type"] != "error", message
            if message["type"] == "ack":
                seq = max(seq, message["seq"])
                unanswered -= 1
                room.release()

    reading = asyncio.create_task(read())
    for number in range(UPDATES):
        await room.acquire()
        await socket.send(telemetry(number))
        if number % UPDATES_A_COMMAND == 0:
            await room.acquire()
            await socket.send(control(number))
    await reading
    return seq


async def cast_past_a_stalled_reader(server: ServerProcess, stalled: StalledReader) -> int:
    """Let a hundred watch, one of them stalled; return the last seq once the others have everything."""
    loop = asyncio.get_running_loop()
    readers = [CountingReader(server.port, UPDATES) for _ in range(READERS)]
    async with AsyncExitStack() as stack:
        for reader in readers:
            transport, _ = await loop.create_connection(partial(_itself, reader), "127.0.0.1", server.port)
            stack.callback(transport.close)
        await within(asyncio.gather(*(reader.greeted.wait() for reader in readers)))
        publisher = await stack.enter_async_context(connect(server.ws_url, compression=None, max_queue=None))
        seq: int = await within(publish(publisher))
        await within(asyncio.gather(*(reader.done.wait() for reader in readers)))
    assert [reader.events for reader in readers] == [UPDATES] * READERS
    return seq


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 4 * DEADLINE_S)


async def test_a_stalled_reader_slows_nobody_and_gets_the_newest_values(server_process: StartServer, edge: str) -> None:
    server = server_process("memory:", edge=edge)
    with StalledReader(server.port) as stalled:
        assert stalled.read_message()["type"] == "hello"
        last_seq = await cast_past_a_stalled_reader(server, stalled)
        messages = await asyncio.to_thread(stalled.read_until, last_seq)

    events = [message for message in messages if message["type"] == "data_update"]
    assert sum(event.get("merged", 1) for event in events) == UPDATES, "each update is delivered or counted as merged"
    assert len(events) < UPDATES, "the reader was stalled for longer than buffers hide it"
    newest = {event["device_id"]: event["value"]["number"] for event in events}
    assert newest == {f"d{number % DEVICES}": number for number in range(UPDATES)}
    counts = Counter(event["device_id"] for event in events if event.get("merged", 1) > 1)
    assert max(counts.values()) <= 2, "conflation keeps one waiting value per device"

    commands = [message["command"] for message in messages if message["type"] == "control"]
    assert commands == [f"c{number}" for number in range(0, UPDATES, UPDATES_A_COMMAND)], "commands are never merged"
    positions = [message["seq"] for message in messages]
    assert positions == sorted(positions)
    assert server.get("/api/status")["ok"] is True


def test_a_reader_whose_debt_grows_too_large_is_let_go(server_process: StartServer, edge: str) -> None:
    """Commands cannot be merged, so they are what fills an outbox."""
    server = server_process("memory:", edge=edge)
    order = {"target": "t", "command": "c", "args": {"padding": "x" * 60_000}}
    with StalledReader(server.port) as stalled:
        assert stalled.read_message()["type"] == "hello"
        sent = 0
        while server.get("/api/status")["websocket_clients_connected"]:
            assert server.post("/api/control", order).status_code == 200
            sent += 1
            assert sent < 1_000, "an outbox is bounded"
        assert stalled.read_close() == 4008

"""What the fast edge assumes of picows and of uvicorn, neither of which promises it."""

import asyncio
import gc
import inspect
import re
import sys
import tomllib
import tracemalloc
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import uvicorn
from picows import WSListener, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub shows only the documented names
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fuzz.edge import HEAD, EdgeClient, EdgeServer
from tests import warm
from tests.calls import calls_of
from tests.conftest import StartServer
from tests.raw_websocket import CLOSE, PING, TEXT, RawWebSocket, frame
from tests.running import DEADLINE_S, ROOT
from twincast.server.conversation import Conversation
from twincast.server.websocket import PicowsEdge


def test_the_minor_version_of_picows_is_pinned_and_is_the_one_that_runs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [wanted] = [requirement for requirement in extras["server"] if requirement.startswith("picows")]
    assert wanted.partition(";")[0] == "picows>=2.3.1,<2.4"
    assert version("picows").startswith("2.3.")


def test_picows_has_what_the_edge_builds_on() -> None:
    assert issubclass(PicowsEdge, WSProtocol) and issubclass(Conversation, WSListener)
    for name in ("connection_made", "connection_lost", "get_buffer", "buffer_updated", "transport", "listener"):
        assert hasattr(WSProtocol, name), name
    for name in ("underlying_transport", "is_close_frame_sent", "disconnect"):
        assert hasattr(WSTransport, name), name
    for name in ("pause_writing", "resume_writing", "on_ws_frame", "on_ws_connected", "on_ws_disconnected"):
        assert hasattr(WSListener, name), name


def test_uvicorn_hands_an_upgrade_over_as_the_edge_expects() -> None:
    assert {"config", "server_state", "app_state"} <= set(inspect.signature(PicowsEdge).parameters)
    handover = inspect.getsource(HttpToolsProtocol.handle_websocket_upgrade)
    for step in ("ws_protocol_class(", "connection_made(self.transport)", "data_received(", "set_protocol("):
        assert step in handover
    assert "ws" in inspect.signature(uvicorn.Config).parameters


def test_a_client_that_is_silent_is_pinged_and_let_go(server_process: StartServer) -> None:
    quick = {"TWINCAST_PING_INTERVAL_S": "0.2", "TWINCAST_PONG_TIMEOUT_S": "0.2"}
    server = server_process("memory:", **quick)
    with RawWebSocket(server.port) as silent:
        silent.read_message()
        seen = []
        with pytest.raises(EOFError):
            while True:
                seen.append(silent.read().opcode)
    assert seen[0] == PING
    assert set(seen) <= {PING, CLOSE}


def test_a_request_head_in_pieces_becomes_a_socket(server_process: StartServer) -> None:
    """uvicorn replays a head longer than picows' first buffer."""
    server = server_process("memory:")
    with RawWebSocket(server.port, headers={f"X-Filler-{n}": "x" * 400 for n in range(20)}) as client:
        assert client.status == 101
        assert client.read_message()["type"] == "hello"


def new_key(journal: str) -> str:
    command = [sys.executable, "-m", "twincast", "keys", "add", "one", "--may", "read", "--journal", journal]
    done = warm.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.stdout.strip()


def test_an_upgrade_that_fails_takes_no_place_from_the_next(server_process: StartServer, tmp_path: Path) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    bearer = {"Authorization": f"Bearer {new_key(journal)}"}
    server = server_process(journal, TWINCAST_IDENTITY_CONNECTIONS_MAX="1")
    for _ in range(3):
        with RawWebSocket(server.port, headers={**bearer, "Sec-WebSocket-Key": "short"}) as refused:
            assert refused.status == 400
    with RawWebSocket(server.port, headers=bearer) as client:
        assert client.status == 101
        assert client.read_message()["type"] == "hello"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer twc_\xe4"}, 401),
        ({"Host": "127.0.0.\xb9"}, 403),
        ({"Sec-WebSocket-Version": "1\xb3"}, 426),
        ({"Sec-WebSocket-Key": "\xb3"}, 400),
    ],
)
def test_a_header_that_is_not_ascii_is_refused_and_leaves_no_traceback(
    server_process: StartServer, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    bearer = {"Authorization": f"Bearer {new_key(journal)}"}
    server = server_process(journal)
    with RawWebSocket(server.port, headers=bearer | headers) as refused:
        assert refused.status == status
    assert "Traceback" not in server.stop()


async def test_connections_that_are_idle_have_no_tasks_and_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    call_later = loop.call_later

    def noted(delay_s: float, callback: Any, *arguments: Any) -> asyncio.TimerHandle:
        timers.append(call_later(delay_s, callback, *arguments))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", noted)
    tasks = asyncio.all_tasks()
    server = EdgeServer()
    clients = [EdgeClient(server=server) for _ in range(50)]
    for client in clients:
        client.says(HEAD)
        assert b'"hello"' in client.heard()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert len([timer for timer in timers if not timer.cancelled()]) == 1
    for client in clients:
        client.edge.connection_lost(None)


def held_by(thing: object) -> Iterator[object]:
    """Yield what an object holds, but neither code nor the loop."""
    seen, left = set[int](), [thing]
    while left:
        held = left.pop()
        if id(held) not in seen and not isinstance(held, type | ModuleType | FunctionType | asyncio.AbstractEventLoop):
            seen.add(id(held))
            yield held
            left += gc.get_referents(held)


async def test_nothing_of_a_handshake_is_kept() -> None:
    client = EdgeClient()
    client.says(HEAD.replace(b"/ws", b"/ws?devices=of-the-address").replace(b"Host", b"X-Mark: of-the-head\r\nHost"))
    assert b'"hello"' in client.heard()
    kept = [text for text in held_by(client.edge) if isinstance(text, str | bytes)]
    heads = [text for text in kept if re.search(r"of-the-head|X-Mark|devices=|Sec-WebSocket", str(text), re.I)]
    assert not heads
    client.leaves()


async def test_clients_that_ask_alike_share_one_subscription() -> None:
    server = EdgeServer()
    clients = [EdgeClient(server=server) for _ in range(3)]
    for client in clients:
        client.says(HEAD.replace(b"/ws", b"/ws?devices=lab/*&kinds=deleted"))
    first, *others = [client.edge.listener.session.feed.subscription for client in clients]
    assert all(other is first for other in others)


def calls_of_a_read(client: EdgeClient, data: bytes) -> list[str]:
    """Return which functions in Python are called while a client's bytes are read, as uvloop does it."""
    get_buffer, buffer_updated = client.edge.get_buffer, client.edge.buffer_updated

    def read() -> None:
        get_buffer(1 << 16)[: len(data)] = data
        buffer_updated(len(data))

    return calls_of(read)


async def test_a_read_costs_few_calls_and_no_more_of_them_beside_a_thousand_others() -> None:
    reading = frame(TEXT, b'{"type":"telemetry","device_id":"lab","value":1}')
    server = EdgeServer()
    first = EdgeClient(server=server)
    first.says(HEAD.replace(b"/ws", b"/ws?devices="))
    calls_of_a_read(first, reading)  # after which the name of the device is known
    alone = calls_of_a_read(first, reading)
    for _ in range(999):
        last = EdgeClient(server=server)
        last.says(HEAD.replace(b"/ws", b"/ws?devices="))
    assert len(calls_of_a_read(first, reading)) == len(calls_of_a_read(last, reading)) == len(alone)
    fixed = calls_of_a_read(first, reading[:1])  # of which no frame becomes complete
    assert len(fixed) <= 5, fixed


@pytest.mark.parametrize(("query", "max_bytes"), [(b"", 7_000), (b"?devices=lab%d", 10_000)])
async def test_a_client_that_is_idle_has_little_memory(query: bytes, max_bytes: int) -> None:
    """picows' buffers are in it, uvloop's transport is not."""
    server = EdgeServer()
    clients: list[EdgeClient] = []

    def connect(count: int) -> None:
        for _ in range(count):
            clients.append(EdgeClient(server=server))
            own = query % len(clients) if query else query
            clients[-1].says(HEAD.replace(b"/ws", b"/ws" + own))
            clients[-1].heard()

    connect(50)
    tracemalloc.start()
    try:
        gc.collect()
        before_bytes = tracemalloc.get_traced_memory()[0]
        connect(500)
        gc.collect()
        each_bytes = (tracemalloc.get_traced_memory()[0] - before_bytes) / 500
    finally:
        tracemalloc.stop()
    assert each_bytes <= max_bytes

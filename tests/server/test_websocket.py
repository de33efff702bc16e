"""What the fast edge assumes of picows and of uvicorn, neither of which promises it."""

import inspect
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from picows import WSListener, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub shows only the documented names
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests import warm
from tests.conftest import StartServer
from tests.raw_websocket import CLOSE, PING, RawWebSocket
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

"""What RFC 6455 asks of a server beyond single frames, on both edges: numbers name its sections."""

from collections.abc import Iterator

import pytest

from tests.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawWebSocket, frame
from tests.running import ServerProcess

PING_MESSAGE = b'{"type":"ping"}'
MESSAGE_MAX_BYTES = 64 * 1024


@pytest.fixture(scope="module", params=["picows", "portable"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Run one server for all of this: whatever a client does, the next one must be served."""
    server = ServerProcess("memory:", edge=request.param).ready()
    yield server
    server.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[RawWebSocket]:
    with RawWebSocket(server.port) as socket:
        assert socket.status == 101
        assert socket.read_message()["type"] == "hello"
        yield socket


def test_a_message_in_fragments_is_one_message(client: RawWebSocket) -> None:
    client.send(TEXT, PING_MESSAGE[:4], fin=False)
    client.send(CONTINUATION, PING_MESSAGE[4:9], fin=False)
    client.send(CONTINUATION, b"", fin=False)
    client.send(CONTINUATION, PING_MESSAGE[9:])
    assert client.read_message()["type"] == "pong"


def test_control_frames_may_come_between_fragments(client: RawWebSocket) -> None:
    client.send(TEXT, PING_MESSAGE[:4], fin=False)
    client.send(PING, b"are you there")
    got = client.read()
    assert (got.opcode, got.payload) == (PONG, b"are you there")
    client.send(PONG, b"nobody asked")
    client.send(CONTINUATION, PING_MESSAGE[4:])
    assert client.read_message()["type"] == "pong"


def test_frames_that_arrive_byte_by_byte_are_read(client: RawWebSocket) -> None:
    for byte in frame(TEXT, PING_MESSAGE):
        client.socket.sendall(bytes([byte]))
    assert client.read_message()["type"] == "pong"
    for byte in frame(PING, b"x"):
        client.socket.sendall(bytes([byte]))
    assert client.read().payload == b"x"


def test_text_may_be_cut_inside_a_character(client: RawWebSocket) -> None:
    message = '{"type":"telemetry","device_id":"Küche","value":"21 °C 🌡"}'.encode()
    cut = message.index("🌡".encode()) + 2
    client.send(TEXT, message[:cut], fin=False)
    client.send(CONTINUATION, message[cut:])
    event = client.read_message()
    assert (event["device_id"], event["value"]) == ("Küche", "21 °C 🌡")


@pytest.mark.parametrize("payload", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok \xe2\x82"])
def test_text_that_is_not_utf8_ends_the_connection_with_1007(client: RawWebSocket, payload: bytes) -> None:
    client.send(TEXT, payload)
    assert client.read_close() == 1007


def test_a_character_left_open_at_the_last_fragment_is_1007(client: RawWebSocket) -> None:
    client.send(TEXT, b'"\xf0\x9f', fin=False)
    client.send(CONTINUATION, b"\x8c")
    assert client.read_close() == 1007


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_reserved_bits_are_a_protocol_error(client: RawWebSocket, opcode: int, rsv: int) -> None:
    client.send(opcode, b"x", rsv=rsv)
    assert client.read_close() == 1002


@pytest.mark.parametrize("opcode", [0x3, 0x7, 0xB, 0xF])
def test_reserved_opcodes_are_a_protocol_error(client: RawWebSocket, opcode: int) -> None:
    client.send(opcode, b"x")
    assert client.read_close() == 1002


def test_a_continuation_of_nothing_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(CONTINUATION, PING_MESSAGE)
    assert client.read_close() == 1002


def test_a_surrogate_is_refused_before_the_next_fragment_comes(server: ServerProcess, client: RawWebSocket) -> None:
    client.send(TEXT, b"\xed\xa0", fin=False)
    if server.edge == "portable":  # the library below it decodes the whole message alone
        client.send(CONTINUATION, b"\x80")
    assert client.read_close() == 1007


def test_a_new_message_inside_a_fragmented_one_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(TEXT, PING_MESSAGE[:4], fin=False)
    client.send(TEXT, PING_MESSAGE)
    assert client.read_close() == 1002


def test_a_fragmented_control_frame_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(PING, b"x", fin=False)
    assert client.read_close() == 1002


def test_a_control_frame_of_more_than_125_bytes_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(PING, b"x" * 126)
    assert client.read_close() == 1002


def test_an_unmasked_frame_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(TEXT, PING_MESSAGE, masked=False)
    assert client.read_close() == 1002


def test_a_ping_of_125_bytes_comes_back_as_it_was(client: RawWebSocket) -> None:
    client.send(PING, bytes(range(125)))
    got = client.read()
    assert (got.opcode, got.fin, got.payload) == (PONG, True, bytes(range(125)))


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 3000, 4999])
def test_a_close_is_answered_with_its_own_code(client: RawWebSocket, code: int) -> None:
    client.send(CLOSE, code.to_bytes(2, "big") + "bye ✓".encode())
    got = client.read()
    assert (got.opcode, got.close_code) == (CLOSE, code)
    assert client.at_end()


def test_a_close_without_a_code_is_answered(client: RawWebSocket) -> None:
    client.send(CLOSE)
    assert client.read().close_code in {None, 1000}
    assert client.at_end()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_close_code_that_nobody_may_send_is_a_protocol_error(client: RawWebSocket, code: int) -> None:
    client.send(CLOSE, code.to_bytes(2, "big"))
    assert client.read().close_code == 1002


def test_a_close_frame_of_one_byte_is_a_protocol_error(client: RawWebSocket) -> None:
    client.send(CLOSE, b"\x03")
    assert client.read().close_code == 1002


def test_a_close_reason_that_is_not_utf8_is_an_error(client: RawWebSocket) -> None:
    client.send(CLOSE, (1000).to_bytes(2, "big") + b"\xff\xfe")
    assert client.read().close_code in {1002, 1007}


def test_nothing_after_a_close_is_taken(server: ServerProcess, client: RawWebSocket) -> None:
    late = frame(TEXT, b'{"type":"telemetry","device_id":"late","value":1}')
    client.socket.sendall(frame(CLOSE, (1000).to_bytes(2, "big")) + late)
    assert client.read().opcode == CLOSE
    assert client.at_end()
    assert "late" not in server.get("/api/data")["data"]


@pytest.mark.parametrize(("opcode", "payload"), [(TEXT, PING_MESSAGE), (PING, b"x"), (TEXT, b"\xff")])
def test_a_close_frame_is_the_last_one_when_a_broken_frame_comes_at_once(
    client: RawWebSocket, opcode: int, payload: bytes
) -> None:
    client.socket.sendall(frame(opcode, payload) + frame(0x3))
    assert client.read_close() in {1002, 1007}


def test_a_broken_frame_after_the_close_frame_is_not_answered_by_another(client: RawWebSocket) -> None:
    client.send(TEXT, b"\xff")
    assert client.read().close_code == 1007
    client.send(0x3)
    assert client.at_end()


@pytest.mark.parametrize("size_bytes", [MESSAGE_MAX_BYTES + 1, 100 * 1024, 1024 * 1024])
def test_a_message_over_the_limit_ends_the_connection_with_1009(client: RawWebSocket, size_bytes: int) -> None:
    client.send(TEXT, b'"' + b"x" * (size_bytes - 2) + b'"')
    assert client.read_close() == 1009


def test_fragments_that_add_up_to_more_than_the_limit_are_1009(client: RawWebSocket) -> None:
    client.send(TEXT, b"x" * MESSAGE_MAX_BYTES, fin=False)
    client.send(CONTINUATION, b"x" * MESSAGE_MAX_BYTES, fin=False)
    client.send(CONTINUATION, b"x" * MESSAGE_MAX_BYTES)
    assert client.read_close() == 1009


def test_a_message_of_exactly_the_limit_is_taken(client: RawWebSocket) -> None:
    head, tail = b'{"type":"telemetry","device_id":"d","value":1', b"}"
    client.send(TEXT, head + b" " * (MESSAGE_MAX_BYTES - len(head) - len(tail)) + tail)
    assert client.read_message()["type"] == "data_update"


def test_a_message_over_the_limit_is_answered_by_name_before_the_connection_ends(client: RawWebSocket) -> None:
    head, tail = b'{"type":"telemetry","id":7,"device_id":"d","value":1', b"}"
    client.send(TEXT, head + b" " * (MESSAGE_MAX_BYTES + 1 - len(head) - len(tail)) + tail)
    error = client.read_message()
    assert (error["code"], error["id"], error["retryable"]) == ("too_large", 7, False)
    assert client.read_close() == 1009


def test_a_binary_message_is_refused_and_the_conversation_goes_on(client: RawWebSocket) -> None:
    client.send(BINARY, PING_MESSAGE)
    assert client.read_message()["code"] == "unsupported_media_type"
    client.send(BINARY, PING_MESSAGE[:4], fin=False)
    client.send(CONTINUATION, PING_MESSAGE[4:])
    assert client.read_message()["code"] == "unsupported_media_type"
    client.send(TEXT, PING_MESSAGE)
    assert client.read_message()["type"] == "pong"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_a_foreign_page_or_name_gets_no_socket(server: ServerProcess, headers: dict[str, str]) -> None:
    with RawWebSocket(server.port, headers=headers) as refused:
        assert refused.status == 403


def test_our_own_page_gets_a_socket(server: ServerProcess) -> None:
    with RawWebSocket(server.port, headers={"Origin": f"http://127.0.0.1:{server.port}"}) as accepted:
        assert accepted.status == 101


def test_there_is_no_socket_elsewhere(server: ServerProcess) -> None:
    with RawWebSocket(server.port, path="/elsewhere") as refused:
        assert refused.status in {403, 404}


def test_a_socket_may_be_asked_for_with_a_query(server: ServerProcess) -> None:
    with RawWebSocket(server.port, path="/ws?since=abc:1") as accepted:
        assert accepted.status == 101


def test_a_handshake_of_another_version_is_refused(server: ServerProcess) -> None:
    with RawWebSocket(server.port, headers={"Sec-WebSocket-Version": "12"}) as refused:
        assert refused.status in {400, 426}


def test_the_server_is_well_after_all_of_this(server: ServerProcess, client: RawWebSocket) -> None:
    for garbage in (b"\x00" * 64, os_like_noise(), frame(TEXT, PING_MESSAGE)[:3]):
        with RawWebSocket(server.port) as broken:
            broken.socket.sendall(garbage)
    client.send(TEXT, PING_MESSAGE)
    assert client.read_message()["type"] == "pong"


def os_like_noise() -> bytes:
    """Return bytes that are no frame of any kind, the same at each run."""
    return bytes((i * 73 + 41) % 256 for i in range(512))

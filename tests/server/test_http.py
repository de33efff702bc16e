"""HTTP's bounds: what a client may cost before, beside and behind its request."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.credentials import add_key, bearer
from tests.running import DEADLINE_S, eventually, free_port
from twincast.access.addresses import TrustedProxies
from twincast.server.http import BoundedHttp
from twincast.settings import Settings
from twincast.testing import Server

HEAD = b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def opened(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def everything_from(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def answer_to(server: Server, request: bytes) -> bytes:
    """Return what a server says to some bytes, up to the end of the connection."""
    with closing(opened(server)) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return everything_from(connection)


def answers_to(server: Server, requests: bytes) -> bytes:
    """Return what a server says to requests of which the last one closes the connection."""
    with closing(opened(server)) as connection:
        connection.sendall(requests)
        return everything_from(connection)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "begun", [b"", b"GET /api/sta", HEAD, HEAD + b"X-Slow: "], ids=["nothing", "line", "head", "name"]
)
def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    with Server(head_timeout_s=0.3) as server, closing(opened(server)) as connection:
        connection.sendall(begun)
        assert status_of(everything_from(connection)) == 408


def test_a_head_that_trickles_has_no_more_time_than_one_that_stops() -> None:
    with Server(head_timeout_s=0.5) as server, closing(opened(server)) as connection:
        connection.sendall(HEAD)
        connection.settimeout(0.05)
        answer = b""
        for _ in range(200):
            try:
                connection.sendall(b"X-A: b\r\n")
                answer = connection.recv(1_024)
                break
            except TimeoutError:
                continue
        assert status_of(answer) == 408


def test_empty_lines_do_not_keep_a_connection_open() -> None:
    with Server(head_timeout_s=0.5) as server, closing(opened(server)) as connection:
        connection.settimeout(0.05)
        answer = None
        for _ in range(200):
            try:
                connection.sendall(b"\r\n")
                answer = connection.recv(1_024)
                break
            except TimeoutError:
                continue
        assert answer is not None and status_of(answer) == 408


def test_a_connection_that_is_used_is_not_cut_off_by_the_time_of_a_head() -> None:
    with Server(head_timeout_s=1.0) as server, httpx.Client() as http:
        began_s = time.monotonic()
        while time.monotonic() - began_s < 2.0:
            assert http.get(f"{server.url}/api/status").status_code == 200
        with httpx.stream("GET", f"{server.url}/api/events", headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()
            next(lines)
            eventually(lambda: time.monotonic() - began_s > 4.0, "more than a head's time passes")
            http.post(f"{server.url}/api/data", json={"device_id": "late", "value": 1}).raise_for_status()
            assert any("late" in line for line in lines if line)


def test_a_head_has_a_size() -> None:
    with Server(head_max_bytes=2_048) as server:
        connection = opened(server)
        with closing(connection):
            connection.sendall(HEAD + b"X-Big: ")
            answer = b""
            while not answer:
                try:
                    connection.sendall(b"x" * 512)
                    connection.settimeout(0.01)
                    answer = connection.recv(1_024)
                except TimeoutError:
                    continue
            assert status_of(answer) == 431
        assert httpx.get(f"{server.url}/api/status").status_code == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"Content-Length: 100\r\n\r\n",
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n64\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n64;an=extension",
    ],
    ids=["nothing", "a byte", "no chunk", "part of a chunk", "an extension"],
)
@pytest.mark.parametrize("line", [b"POST /api/data", b"GET /api/status"])
def test_a_body_that_does_not_come_is_not_waited_for(line: bytes, begun: bytes) -> None:
    with Server(body_timeout_s=0.3) as server, closing(opened(server)) as connection:
        connection.sendall(line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + begun)
        answer = everything_from(connection)
        assert status_of(answer) == 408
        assert b"connection: close" in answer.lower()


def test_the_body_of_a_request_that_takes_none_is_bounded_too() -> None:
    with Server() as server:
        answer = httpx.request("GET", f"{server.url}/api/status", content=b"x" * (1 << 20))
        assert answer.status_code == 413


CHUNKED = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("path", [b"/api/data", b"/nowhere"])
@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"x" * 1_000], ids=["many", "one that is long"])
def test_trailers_have_the_size_of_a_head(path: bytes, piece: bytes) -> None:
    with Server(head_max_bytes=2_048) as server, closing(opened(server)) as connection:
        sent_bytes = 0
        connection.settimeout(0.01)
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\n" + CHUNKED + b"\r\n0\r\n")
        with suppress(ConnectionError):
            while sent_bytes < 10_000_000:
                with suppress(TimeoutError):
                    connection.sendall(piece * 50)
                    sent_bytes += 50 * len(piece)
                    if not connection.recv(65_536):
                        break
        assert sent_bytes < 10_000_000
        assert httpx.get(f"{server.url}/api/status").json()["ok"]


def test_what_a_trailer_says_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    key = bearer(add_key(path, publish=["*"]))["Authorization"].encode()
    body = b'{"device_id":"a","value":1}'
    chunks = b"\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    with Server(f"sqlite:{path}") as server:
        head = b"POST /api/data HTTP/1.1\r\n" + CHUNKED + b"Connection: close\r\n"
        assert status_of(answers_to(server, head + chunks + b"Authorization: " + key + b"\r\n\r\n")) == 401
        good = head + b"Authorization: " + key + b"\r\n" + chunks
        assert status_of(answers_to(server, good + b"\r\n")) == 200
        assert status_of(answers_to(server, good + b"Authorization: Bearer wrong\r\n\r\n")) == 200


def test_a_body_in_small_chunks_is_taken() -> None:
    body = b'{"device_id":"a","value":"%b"}' % (b"x" * 40_000)
    pieces = (body[at : at + 16] for at in range(0, len(body), 16))
    with Server(head_max_bytes=2_048) as server:
        answer = httpx.post(f"{server.url}/api/data", content=pieces, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200


def test_a_head_that_comes_in_one_piece_has_a_size_too() -> None:
    with Server(head_max_bytes=2_048) as server:
        assert status_of(answer_to(server, HEAD + b"X-Big: " + b"x" * 4_000 + b"\r\n\r\n")) == 431
        assert status_of(answer_to(server, HEAD + b"X-Big: " + b"x" * 1_000 + b"\r\n\r\n")) == 200


def test_the_rest_of_a_body_is_not_waited_for_when_the_answer_is_there() -> None:
    with Server() as server, closing(opened(server)) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nx")
        assert status_of(everything_from(connection)) == 404


@pytest.mark.parametrize("path", [b"/api/data", b"/api/control", b"/nowhere"])
def test_a_refused_body_may_go_on_coming_and_the_answer_is_read_all_the_same(path: bytes) -> None:
    """Closed at once the connection would be reset, and a proxy in front would say 502."""
    size_bytes = 5 << 20
    with Server() as server:
        for _ in range(5):
            with closing(opened(server)) as connection:
                connection.sendall(
                    b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (path, size_bytes)
                )
                time.sleep(0.05)  # the answer is on its way
                connection.sendall(b"x" * size_bytes)
                assert status_of(everything_from(connection)) in (404, 413)


def test_few_requests_wait_behind_one_that_is_answered() -> None:
    with Server() as server:
        few = (HEAD + b"\r\n") * 4 + HEAD + b"Connection: close\r\n\r\n"
        assert answers_to(server, few).count(b"HTTP/1.1 200") == 5
        with closing(opened(server)) as connection:
            connection.sendall((HEAD + b"\r\n") * 1_000)
            got = b""
            with suppress(ConnectionError):
                got = everything_from(connection)
            assert got.count(b"HTTP/1.1 200") < 1_000


def test_an_upgrade_does_not_come_between_an_answer_and_its_end(edge: str) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    stream = b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    with Server(edge=edge) as server, closing(opened(server)) as connection:
        connection.sendall(stream)
        got = connection.recv(65_536)
        connection.sendall(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade)
        with suppress(ConnectionError):
            got += everything_from(connection)
        assert got.startswith(b"HTTP/1.1 200") and b"101 Switching" not in got


def test_a_head_that_asks_for_a_websocket_is_bounded_with_an_answer(edge: str) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    head = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade
    with Server(edge=edge) as server:
        assert status_of(answer_to(server, head + b"X-Big: " + b"x" * 13_000 + b"\r\n\r\n")) == 431
        with closing(opened(server)) as connection:
            connection.sendall(head + (b"X-Big: " + b"x" * 1_000 + b"\r\n") * 11 + b"\r\n")
            assert status_of(connection.recv(65_536)) == 101


def test_a_connection_that_ends_does_although_its_last_bytes_are_not_read() -> None:
    with Server(write_timeout_s=0.5, connections_max=1) as server, closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", server.port))
        # Enough that something is left behind, and too little for the server to hold anything back.
        connection.sendall(b"GET /dashboard HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 7)
        connection.sendall(b"GET /dashboard HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert status_of(answer_to(server, HEAD + b"\r\n")) == 503
        eventually(lambda: status_of(answer_to(server, HEAD + b"\r\n")) == 200, "its place is free")


def test_connections_of_an_address_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustedProxies, "is_exempt", lambda *_: False)  # as if from elsewhere
    with Server(address_connections_max=3) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(opened(server))).sendall(HEAD)
        eventually(lambda: len(BoundedHttp.open_by_address["127.0.0.1"]) == 3, "three are counted")
        assert status_of(answer_to(server, HEAD + b"\r\n")) == 503
        stack.close()
        eventually(lambda: not BoundedHttp.open_by_address, "they are forgotten")
        assert status_of(answer_to(server, HEAD + b"\r\n")) == 200


def answered(server: Server, stack: ExitStack) -> socket.socket:
    """Return a connection that has had an answer and waits, as clients keep them."""
    connection = stack.enter_context(closing(opened(server)))
    assert asked_again(connection) == 200
    return connection


def asked_again(connection: socket.socket) -> int:
    """Ask on a connection that stays open, and take the whole answer."""
    connection.sendall(HEAD + b"\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65_536)
        assert part, f"the connection was closed after {answer!r}"
        answer += part
    return status_of(answer)


def test_a_connection_is_kept_for_its_next_request_as_long_as_promised() -> None:
    assert Settings().keep_alive_timeout_s == 75  # proxies and clients keep theirs for a minute
    with Server(keep_alive_timeout_s=0.5) as server, ExitStack() as stack:
        assert everything_from(answered(server, stack)) == b""
    with Server(keep_alive_timeout_s=60) as server, ExitStack() as stack:
        kept = answered(server, stack)
        began_s = time.monotonic()
        eventually(lambda: time.monotonic() - began_s > 5.2, "more passes than uvicorn waits by itself")
        assert asked_again(kept) == 200


def test_idle_connections_make_room_the_longest_first() -> None:
    with Server(connections_max=3) as server, ExitStack() as stack:
        idle = [answered(server, stack) for _ in range(3)]
        for _ in range(20):
            answered(server, stack)
        assert [each.recv(1) for each in idle] == [b"", b"", b""]


def test_a_process_that_may_open_few_files_keeps_enough_for_itself(tmp_path: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); sys.argv[0] = 'twincast'"
    port = free_port()
    words = ["serve", "--port", str(port), "--journal", f"sqlite:{tmp_path}/j.db"]
    code = f"{limit}; from twincast.cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        with ExitStack() as stack:
            url = f"http://127.0.0.1:{port}/api/status"
            eventually(lambda: answers(url), "it answers", DEADLINE_S)
            for _ in range(200):
                kept = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=10)))
                kept.sendall(HEAD + b"\r\n")
                assert status_of(kept.recv(65_536)) == 200
        process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_a_connection_that_works_makes_no_room() -> None:
    with Server(connections_max=2) as server, ExitStack() as stack:
        stream = stack.enter_context(closing(opened(server)))
        stream.sendall(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        stream.recv(65_536)
        began = answered(server, stack)
        began.sendall(HEAD)
        eventually(lambda: status_of(answer_to(server, HEAD + b"\r\n")) == 503, "there is no room")
        began.sendall(b"Connection: close\r\n\r\n")
        assert status_of(everything_from(began)) == 200
        assert status_of(answer_to(server, HEAD + b"\r\n")) == 200


def test_idle_connections_of_an_address_make_room_for_its_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustedProxies, "is_exempt", lambda *_: False)  # as if from elsewhere
    with Server(address_connections_max=3) as server, ExitStack() as stack:
        idle = [answered(server, stack) for _ in range(3)]
        answered(server, stack)
        assert idle[0].recv(1) == b""
        assert asked_again(idle[1]) == 200


def test_who_sends_no_more_is_answered_all_the_same() -> None:
    body = b'{"device_id":"a","value":1}'
    post = b"POST /api/data HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    post += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with Server() as server:
        for _ in range(5):
            assert answer_to(server, post * 3).count(b"HTTP/1.1 200") == 3
            assert answer_to(server, post[:-1]) == b""  # nobody will send the rest


def test_a_stream_ends_when_its_client_does() -> None:
    with Server() as server, closing(opened(server)) as stream:
        stream.sendall(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        stream.recv(65_536)
        stream.shutdown(socket.SHUT_WR)
        everything_from(stream)


def test_connections_have_a_number_and_whoever_is_too_many_is_told() -> None:
    with Server(connections_max=3) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(opened(server))).sendall(HEAD)
        eventually(lambda: status_of(answer_to(server, HEAD + b"\r\n")) == 503, "the fourth is refused")
        answer = answer_to(server, HEAD + b"\r\n").lower()
        assert b"retry-after: 1" in answer
        assert b"too_many_connections" in answer


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, is_late = threading.Event(), BoundedHttp._reader_is_late

    def noted(connection: BoundedHttp) -> None:
        is_late(connection)
        given_up.set()

    monkeypatch.setattr(BoundedHttp, "_reader_is_late", noted)
    with Server(write_timeout_s=0.3) as server:
        body = [{"device_id": f"d{number}", "value": "x" * 1_000} for number in range(3_000)]
        httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
        with closing(socket.socket()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(b"GET /api/data HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3)
            connection.settimeout(10)
            assert given_up.wait(DEADLINE_S)
            got_bytes = 0
            with suppress(ConnectionError):
                while part := connection.recv(65_536):
                    got_bytes += len(part)
            assert got_bytes < 3_000_000  # of nine


# Requests that two readers would understand differently, and pages from elsewhere.

SMUGGLED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "chunked and something": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
    "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a folded line": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a line feed in a name": b"X\nContent-Length: 2\r\n\r\n{}",
    "a nothing in a value": b"X-A: a\0b\r\n\r\n",
    "a bad chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_head_that_two_readers_would_understand_differently_is_refused(name: str) -> None:
    head = b"POST /api/data HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with Server(body_timeout_s=0.5) as server:
        answer = answer_to(server, head + SMUGGLED[name])
        assert answer.count(b"HTTP/1.1 ") <= 1  # never a second answer, to a request that was hidden in the first
        assert status_of(answer) == 400
        assert httpx.get(f"{server.url}/api/status").json()["seq"] == 0


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization"])
def test_a_header_that_decides_who_comes_in_stands_there_once(tmp_path: Path, name: str, edge: str) -> None:
    path = tmp_path / "journal.db"
    good = bearer(add_key(path, read=["*"]))["Authorization"]
    values = {"Host": "127.0.0.1", "Origin": "http://127.0.0.1", "Authorization": good}
    lines = "".join(f"{header}: {value}\r\n" for header, value in values.items() if header != "Origin")
    twice = f"{lines}{name}: {values[name]}\r\n" + (f"{name}: x\r\n" if name == "Origin" else "")
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with Server(f"sqlite:{path}", edge=edge) as server:
        assert status_of(answer_to(server, f"GET /api/data HTTP/1.1\r\n{twice}\r\n".encode())) == 400
        assert status_of(answer_to(server, f"GET /ws HTTP/1.1\r\n{twice}{upgrade}\r\n".encode())) == 400


@pytest.mark.parametrize(
    "host",
    ["evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.example.org", "192.0.2.1", "", "[::1", "@"],
)
def test_a_name_that_was_made_to_point_here_is_refused(host: str, edge: str) -> None:
    with Server(edge=edge) as server:
        for path in ("/api/data", "/dashboard", "/ws"):
            answer = httpx.get(f"{server.url}{path}", headers={"Host": host})
            assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["null", "https://evil.example.org", "http://127.0.0.1.evil.example.org", "file://"])
def test_a_page_from_elsewhere_can_neither_read_nor_write_nor_open_a_websocket(origin: str, edge: str) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    with Server(edge=edge) as server:
        for method, path, more in (("GET", "/api/data", {}), ("POST", "/api/data", {}), ("GET", "/ws", upgrade)):
            answer = httpx.request(method, f"{server.url}{path}", headers={"Origin": origin, **more})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


def test_a_listed_page_may_call_and_the_answer_names_it_and_no_other() -> None:
    listed = "https://app.example.org"
    with Server(allow_origin=(listed, "https://other.example.org")) as server:
        answer = httpx.get(f"{server.url}/api/data", headers={"Origin": listed})
        assert answer.headers["access-control-allow-origin"] == listed
        assert "access-control-allow-credentials" not in answer.headers
        asked = httpx.options(
            f"{server.url}/api/data",
            headers={
                "Origin": listed,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert asked.status_code == 200
        assert "POST" in asked.headers["access-control-allow-methods"]
        own = httpx.get(f"{server.url}/api/data", headers={"Origin": server.url})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("path", ["/api/data", "/api/control", "/api/tickets"])
def test_what_a_foreign_form_could_send_is_not_taken(path: str, content_type: str) -> None:
    with Server() as server:
        answer = httpx.post(f"{server.url}{path}", content=b"{}", headers={"Content-Type": content_type})
        assert answer.status_code == 415

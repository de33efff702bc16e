"""HTTP as clients, proxies and monitors really send it: one table of requests, and what each edge answers.

Most rows are from the trackers of servers and clients: uvicorn, httptools, picows, starlette, httpx, curl, the JDK.
"""

import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.running import DEADLINE_S, ServerProcess
from twincast.testing import Server

ORIGIN = "https://app.example.org"
BODY = b'{"device_id":"a","value":1}'
CHUNKS = b"1b\r\n" + BODY + b"\r\n0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ"
HANDSHAKE = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = f"Connection: Upgrade\r\nUpgrade: websocket\r\n{HANDSHAKE}"
STREAM = "Accept: text/event-stream"
PREFLIGHT = f"Origin: {ORIGIN}\r\nAccess-Control-Request-Method: POST"


def asked(line: str, *headers: str, body: bytes = b"", host: str = "Host: 127.0.0.1") -> bytes:
    """Return one request as bytes; the line has HTTP/1.1 if it names no version."""
    line = line if " HTTP/" in line else f"{line} HTTP/1.1"
    lines = "".join(f"{each}\r\n" for each in (line, host, *headers) if each)
    return f"{lines}\r\n".encode("latin-1") + body


def get(path: str, *headers: str, host: str = "Host: 127.0.0.1") -> bytes:
    return asked(f"GET {path}", *headers, host=host)


def post(*headers: str, line: str = "POST /api/data", body: bytes = BODY, length: int | None = len(BODY)) -> bytes:
    own = [] if length is None else [f"Content-Length: {length}"]
    return asked(line, "Content-Type: application/json", *own, *headers, body=body)


def preflight(names: str, method: str = "POST") -> bytes:
    wanted = f"Access-Control-Request-Method: {method}"
    return asked("OPTIONS /api/data", f"Origin: {ORIGIN}", wanted, f"Access-Control-Request-Headers: {names}")


class Row(NamedTuple):
    """What is sent, which answers come, and what stands in them."""

    sent: bytes
    statuses: tuple[int, ...]
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()


OURS = {
    # Offers to speak another protocol are no reason to lose a body (RFC 9110, 7.8).
    "h2c offered with a body": Row(post(H2C), (200,)),
    "h2c offered with chunks": Row(post(H2C, CHUNKED, body=CHUNKS, length=None), (200,)),
    "h2c offered twice on one connection": Row(post(H2C) * 2, (200, 200)),
    "h2c offered by a GET, and a request behind it": Row(get("/api/status", H2C) + get("/api/data"), (200, 200)),
    "h2c offered to another method": Row(asked("DELETE /api/data?device_id=nobody", H2C), (404,)),
    "h2c offered to a page": Row(get("/docs", H2C), (200,)),
    "TLS offered": Row(post("Connection: Upgrade", "Upgrade: TLS/1.0"), (200,)),
    "nobody knows what offered": Row(post("Connection: Upgrade", "Upgrade: foo/1, bar"), (200,)),
    "a WebSocket offered by a POST": Row(post(WEBSOCKET), (200,)),
    "a WebSocket asked for by a POST": Row(post(WEBSOCKET, line="POST /ws"), (405,), (b"allow: GET",)),
    "a WebSocket asked for with a body": Row(asked("GET /ws", WEBSOCKET, "Content-Length: 27", body=BODY), (426,)),
    "a WebSocket asked for in HTTP/1.0": Row(get("/ws HTTP/1.0", WEBSOCKET), (426,)),
    "a WebSocket asked for by HEAD": Row(asked("HEAD /ws", WEBSOCKET), (426,)),
    "a WebSocket of an older version": Row(
        get("/ws", WEBSOCKET.replace("Version: 13", "Version: 8")), (426,), (b"sec-websocket-version: 13",)
    ),
    # Connection and Upgrade are lists, in one line or several (RFC 9110, 5.3).
    "a list of protocols": Row(get("/ws", "Connection: Upgrade", "Upgrade: websocket, h2c", HANDSHAKE), (101,)),
    "a list that ends in ours": Row(get("/ws", "Connection: Upgrade", "Upgrade: h2c,WebSocket", HANDSHAKE), (101,)),
    "two lines of protocols": Row(
        get("/ws", "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket", HANDSHAKE), (101,)
    ),
    "keep-alive first": Row(get("/ws", "Connection: keep-alive, Upgrade", "Upgrade: websocket", HANDSHAKE), (101,)),
    "tabs and odd case": Row(
        get("/ws", "Connection:\tKeep-Alive ,\tUPGRADE ", "UPGRADE: WEBSOCKET", HANDSHAKE), (101,)
    ),
    "empty elements": Row(get("/ws", "Connection: , Upgrade,", "Upgrade: websocket", HANDSHAKE), (101,)),
    "two lines of Connection": Row(
        get("/ws", "Connection: Upgrade", "Connection: keep-alive", "Upgrade: websocket", HANDSHAKE), (101,)
    ),
    # HTTP/1.0 knows neither chunks nor 100 (RFC 9112, 6.1; RFC 9110, 10.1.1).
    "an event stream in HTTP/1.0": Row(
        get("/api/events HTTP/1.0", STREAM), (200,), (b"\r\n\r\nretry: 2000",), (b"chunked",)
    ),
    "100 is not for HTTP/1.0": Row(post("Expect: 100-continue", line="POST /api/data HTTP/1.0"), (200,)),
    "another HTTP": Row(get("/api/status HTTP/2.0"), (505,)),
    # A target that names its host counts for the Host (RFC 9112, 3.2.2).
    "an absolute target without a path": Row(get("http://127.0.0.1"), (200,)),
    "an absolute target that is a query": Row(get("http://127.0.0.1?x"), (200,)),
    "an absolute target of a foreign host": Row(get("http://evil.example/api/status"), (403,)),
    "an absolute target that is ours, and a foreign Host": Row(
        get("http://127.0.0.1/api/status", host="Host: evil.example"), (200,)
    ),
    "an absolute target without a Host": Row(get("http://127.0.0.1/api/status HTTP/1.0", host=""), (200,)),
    "an absolute target with a user": Row(get("http://a@127.0.0.1/api/status"), (400,)),
    "an absolute target of a WebSocket": Row(get("http://127.0.0.1/ws", WEBSOCKET), (101,)),
    "a WebSocket by an encoded letter": Row(get("/%77s", WEBSOCKET), (101,)),
    "a tunnel": Row(asked("CONNECT 127.0.0.1:80"), (400,), (b"no proxy",)),
    "a head over its size": Row(get("/api/status", "X-Long: " + "a" * 40_000), (431,)),
}
EVERYWHERE = {
    # Whoever monitors asks with HEAD, and whoever looks around with OPTIONS.
    **{
        f"HEAD {path}": Row(asked(f"HEAD {path}"), (200,), (b"content-length: ",), (b"\r\n\r\n{", b"\r\n\r\n<"))
        for path in ("/", "/docs", "/dashboard", "/dashboard/app.js", "/openapi.json", "/api/status", "/api/data")
    },
    "HEAD of a long poll": Row(asked("HEAD /api/events?wait_s=0"), (200,), (b"application/json",)),
    "HEAD of an event stream": Row(asked("HEAD /api/events", STREAM), (200,), (b"text/event-stream",), (b"retry",)),
    "HEAD of what takes none": Row(asked("HEAD /api/control"), (405,), (b"allow: OPTIONS, POST",)),
    "a request behind HEAD": Row(asked("HEAD /api/status") + get("/api/status"), (200, 200)),
    "OPTIONS": Row(asked("OPTIONS /api/data"), (204,), (b"allow: DELETE, GET, HEAD, OPTIONS, POST", b"nosniff")),
    "OPTIONS of a device": Row(asked("OPTIONS /api/data/a"), (204,), (b"allow: DELETE, GET, HEAD, OPTIONS",)),
    "OPTIONS of a page's file": Row(asked("OPTIONS /dashboard/app.js"), (204,), (b"allow: GET, HEAD, OPTIONS",)),
    "OPTIONS of the server": Row(asked("OPTIONS *"), (204,), (b"POST",)),
    "OPTIONS of nothing": Row(asked("OPTIONS /nothing"), (404,)),
    "a page's file is not written": Row(asked("POST /dashboard/app.js"), (405,), (b"allow: GET, HEAD",)),
    "TRACE": Row(asked("TRACE /api/status"), (405,), (b"allow: GET",)),
    # A WebSocket's path without an upgrade.
    "a page at /ws": Row(get("/ws"), (426,), (b"upgrade: websocket", b"connection: Upgrade", b"proxy")),
    "a proxy that drops the upgrade": Row(get("/ws", HANDSHAKE), (426,), (b"proxy",)),
    # What the page of a listed origin may send.
    **{
        f"a preflight for {names}": Row(preflight(names), (200,), (f"allow-headers: {names}".encode(),))
        for names in ("traceparent", "cache-control", "X-Requested-With, pragma", "baggage,tracestate", "if-none-match")
    },
    "a preflight for DELETE": Row(preflight("authorization", "DELETE"), (200,)),
    "a preflight for what there is not": Row(preflight("authorization", "PUT"), (400,)),
    "a preflight for a proxy's words": Row(preflight("X-Forwarded-For"), (400,)),
    "a preflight of a server at home": Row(
        asked("OPTIONS /api/data", PREFLIGHT, "Access-Control-Request-Private-Network: true"), (200,)
    ),
    "a preflight from elsewhere": Row(
        asked("OPTIONS /api/data", PREFLIGHT.replace(ORIGIN, "https://evil.example")), (403,), (), (b"access-control",)
    ),
    # Slashes: no redirect leads to another scheme or host.
    **{
        f"{path} with a slash": Row(get(f"{path}/"), (307,), (f"location: ../{last}\r\n".encode(), b"nosniff"))
        for path, last in (("/api/data", "data"), ("/api/events", "events"), ("/docs", "docs"))
    },
    "a body to a path with a slash": Row(post(line="POST /api/data/"), (404,)),
    "two slashes": Row(get("//api/data"), (404,)),
    "two slashes and a host": Row(get("//evil.example/docs/"), (404,), (), (b"location",)),
    "a slash that is none": Row(get("/api%2Fstatus"), (404,)),
    "an encoded letter": Row(get("/%61pi/status"), (200,)),
    "a parameter of a path": Row(get("/api/status;x=1"), (404,)),
    "dots": Row(get("/dashboard/../settings.py"), (404,)),
    "encoded dots": Row(get("/dashboard/%2e%2e/settings.py"), (404,)),
    "a query without a value": Row(get("/api/status?x"), (200,)),
    "what keeps a cache away": Row(get("/api/data?_=1700000000"), (200,)),
    "an absolute target": Row(get("HTTP://127.0.0.1/api/status"), (200,)),
    # Who asks for an event stream.
    "not at all a stream": Row(get("/api/events", "Accept: text/event-stream;q=0"), (200,), (b"application/json",)),
    "rather no stream": Row(
        get("/api/events", "Accept: application/json, text/event-stream;q=0.1"), (200,), (b"application/json",)
    ),
    "anything": Row(get("/api/events", "Accept: */*"), (200,), (b"application/json",)),
    "a type that begins alike": Row(get("/api/events", "Accept: text/event-streams"), (200,), (b"application/json",)),
    "a stream in capitals": Row(get("/api/events", "Accept: Text/Event-Stream"), (200,), (b"retry: 2000",)),
    "a stream in a second line": Row(
        get("/api/events", "Accept: application/json", STREAM), (200,), (b"retry: 2000",)
    ),
    "an EventSource's stand-in": Row(get("/api/events?lastEventId=", STREAM), (200,), (b"retry: 2000",)),
    # Bodies, and how they come.
    "Expect": Row(post("Expect: 100-continue"), (100, 200)),
    "Expect in capitals": Row(post("Expect: 100-Continue"), (100, 200)),
    "Expect for nothing": Row(asked("POST /nothing", "Expect: 100-continue", "Content-Length: 0"), (404,)),
    "chunks": Row(post("Transfer-Encoding: Chunked", body=CHUNKS, length=None), (200,)),
    "chunks with extensions": Row(post(CHUNKED, body=CHUNKS.replace(b"1b", b'1b;a="b"'), length=None), (200,)),
    "chunks with a trailer": Row(post(CHUNKED, body=CHUNKS[:-2] + b"X-A: b\r\n\r\n", length=None), (200,)),
    "chunks of gzip": Row(post("Transfer-Encoding: gzip, chunked", body=CHUNKS, length=None), (501,)),
    "gzip of chunks": Row(post("Transfer-Encoding: chunked, gzip", body=CHUNKS, length=None), (400,)),
    "chunks and a length": Row(post(CHUNKED, body=CHUNKS), (400,)),
    "two lengths": Row(post("Content-Length: 3"), (400,)),
    "a length with a sign": Row(post("Content-Length: +27", length=None), (400,)),
    "a length without end": Row(post("Content-Length: 99999999999999999999", length=None), (400,)),
    "no body": Row(asked("POST /api/data", "Content-Type: application/json"), (422,)),
    "as it is": Row(post("Content-Encoding: Identity"), (200,)),
    "compressed": Row(post("Content-Encoding: GZIP"), (415,)),
    "a charset": Row(
        asked("POST /api/data", 'Content-Type: Application/JSON; Charset="utf-8"', "Content-Length: 27", body=BODY),
        (200,),
    ),
    "another method by a header": Row(post("X-HTTP-Method-Override: DELETE"), (200,)),
    # HTTP/1.0, and heads that two readers would understand differently.
    "HTTP/1.0": Row(get("/api/status HTTP/1.0"), (200,), (b"connection: close",)),
    "HTTP/1.0 that wants to stay": Row(get("/api/status HTTP/1.0", "Connection: keep-alive"), (200,)),
    "a page in HTTP/1.0": Row(get("/dashboard HTTP/1.0"), (200,), (), (b"chunked",)),
    "a folded line": Row(get("/api/status", "X-A: b\r\n c"), (400,)),
    "a space before a colon": Row(get("/api/status", "X-A : b"), (400,)),
    "a zero": Row(get("/api/status", "X-A: a\x00b"), (400,)),
    "bytes above ASCII": Row(get("/api/status", "X-A: \xff\xe9"), (200,)),
    "lines that end in half": Row(get("/api/status").replace(b"\r\n", b"\n"), (400,)),
    "empty lines first": Row(b"\r\n\r\n" + get("/api/status"), (200,)),
    "requests one behind another": Row(get("/api/status") * 3, (200, 200, 200)),
    "close in a list": Row(get("/api/status", "Connection: foo, close"), (200,), (b"connection: close",)),
    "TLS to a port without": Row(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
}  # fmt: skip
LOST = {
    "h2c offered with a body, without our HTTP": Row(post(H2C), (400,), (b"twincast serve",)),
    "h2c offered with chunks, without our HTTP": Row(post(H2C, CHUNKED, body=CHUNKS, length=None), (400,)),
}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Each edge of `twincast serve`, and the application under uvicorn's own HTTP."""
    plain = ServerProcess("memory:", edge="portable", TWINCAST_ALLOW_ORIGIN=f'["{ORIGIN}"]')
    with Server(allow_origin=(ORIGIN,)) as fast, Server(edge="portable", allow_origin=(ORIGIN,)) as portable:
        yield {"picows": fast.port, "portable": portable.port, "uvicorn": plain.ready().port}
    plain.stop()


def answers(port: int, sent: bytes, count: int) -> bytes:
    """Return so many answers; of one that has no length, the first line of its body."""
    methods = re.findall(rb"^([A-Z]+) \S+ HTTP/", sent, re.M) or [b"GET"]
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(sent)
        came = connection.makefile("rb")
        for _ in range(count):
            head = b""
            while (line := came.readline()) not in (b"", b"\r\n"):
                head += line
            got += head + line
            status, length = statuses(head), re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if status and status[0] not in (100, 101, 204) and methods[0] != b"HEAD":
                got += came.read(int(length[1])) if length else came.readline() + came.readline()
            if status != [100]:
                methods = methods[1:] or methods
    return got


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})[^\r]*\r\n", answer)]


ROWS = [
    *((edge, name, row) for edge in ("picows", "portable") for name, row in (OURS | EVERYWHERE).items()),
    *(("uvicorn", name, row) for name, row in (EVERYWHERE | LOST).items()),
]


@pytest.mark.parametrize(("edge", "row"), [pytest.param(e, row, id=f"{name}, {e}") for e, name, row in ROWS])
def test_a_request_is_understood_as_it_is_meant(ports: dict[str, int], edge: str, row: Row) -> None:
    got = answers(ports[edge], row.sent, len(row.statuses))
    assert tuple(statuses(got)) == row.statuses, got
    for part in row.has:
        assert part.lower() in got.lower()
    for part in row.lacks:
        assert part.lower() not in got.lower()


def test_a_body_behind_its_head_is_taken_although_another_protocol_is_offered(ports: dict[str, int], edge: str) -> None:
    head = post(H2C, body=b"")
    with socket.create_connection(("127.0.0.1", ports[edge]), timeout=DEADLINE_S) as connection:
        for cut in (len(head), len(head) // 2, len(head) - 2):
            connection.sendall(head[:cut])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(head[cut:])
            connection.sendall(BODY)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            assert statuses(answer) == [200]

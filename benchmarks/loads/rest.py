"""REST writes: keep-alive connections, each of which posts again as soon as it has its answer.

What the server says it stored is checked against what it then has.
"""

import asyncio
import json
from collections.abc import Callable
from typing import cast

RECEIVE_BYTES = 1 << 16
TIMEOUT_S = 60.0
_SUCCESSES = (b"http/1.1 200", b"http/1.1 204")


class Refused(Exception):
    """A request was not answered with success. A figure of such a run would be worthless."""


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """Return the bytes of an HTTP/1.1 request with a JSON body."""
    lines = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; sends its next request when the answer to the last is complete."""

    def __init__(self, next_request: Callable[[], bytes | None]) -> None:
        self._next_request = next_request
        self._received = b""
        self.answered = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def start(self) -> None:
        """Send the first request."""
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take an answer; go on when it is whole."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return
        head = self._received[:head_end].lower()
        _, _, length = head.partition(b"content-length:")
        size = int(length.split(b"\r\n")[0]) if length else 0  # a 204 has no body, and does not say so
        if len(self._received) < head_end + size:
            return
        if not head.startswith(_SUCCESSES):
            self.done.set_exception(Refused(self._received.decode()[:400]))
            return
        self._received = b""
        self.answered += 1
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        if not self.done.done():
            self.done.set_exception(error or EOFError("the server ended the connection"))

    def _send(self) -> None:
        text = self._next_request()
        if text is None:
            self.done.set_result(self.answered)
            self._transport.close()
        else:
            self._transport.write(text)


async def measure(
    port: int, make_request: Callable[[int], bytes], *, connections: int, seconds: float
) -> tuple[int, float]:
    """Post for so long; return how many requests were answered with success, and in how many seconds.

    Raises:
        Refused: one was not.
    """
    loop = asyncio.get_running_loop()
    sent = 0
    until_s = float("inf")

    def next_request() -> bytes | None:
        nonlocal sent
        if loop.time() >= until_s:
            return None
        sent += 1
        return make_request(sent)

    protocols = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(lambda: Connection(next_request), "127.0.0.1", port)
        protocols.append(protocol)
    began_s = loop.time()
    until_s = began_s + seconds
    for protocol in protocols:
        protocol.start()
    answered = sum(await asyncio.wait_for(asyncio.gather(*(protocol.done for protocol in protocols)), TIMEOUT_S))
    return answered, loop.time() - began_s


async def status(port: int) -> dict[str, int]:
    """Return what a server says of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("GET", "/api/status", headers={"Connection": "close"}))
    answer = await reader.read()
    writer.close()
    result: dict[str, int] = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    return result

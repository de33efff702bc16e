"""A WebSocket client that may break every rule of RFC 6455, to see what a server does about it."""

import base64
import json
import os
import socket
import struct
from typing import Any, NamedTuple, Self

from tests.running import DEADLINE_S

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Frame(NamedTuple):
    """A frame that the server sent."""

    fin: bool
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big") if self.payload else None


class RawWebSocket:
    """One connection, after its handshake."""

    def __init__(
        self, port: int, path: str = "/ws", headers: dict[str, str] | None = None, receive_buffer_bytes: int = 0
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE_S)
        if receive_buffer_bytes:  # counts only when it is set before the connection is made
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._receive()
        answer, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        self.status = int(answer.split(b" ", 2)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        self.socket.sendall(frame(opcode, payload, fin=fin, rsv=rsv, masked=masked))

    def read(self) -> Frame:
        """Return the next frame. Raises EOFError at the end of the connection."""
        first, second = self._take(2)
        size = second & 0x7F
        assert not second & 0x80, "a server must not mask (RFC 6455, 5.1)"
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return Frame(bool(first & 0x80), first & 0x0F, self._take(size))

    def read_message(self) -> Any:
        """Return the next message, and answer pings before it: on a busy machine any test may last until one comes."""
        while (got := self.read()).opcode == PING:
            self.send(PONG, got.payload)
        assert (got.opcode, got.fin) == (TEXT, True), got
        return json.loads(got.payload)

    def read_close(self) -> int | None:
        """Read up to the close frame, and see the connection end after it."""
        while (got := self.read()).opcode != CLOSE:
            pass
        self.send(CLOSE, got.payload[:2])
        assert self.at_end()
        return got.close_code

    def at_end(self) -> bool:
        """Wait for what comes next; say whether it is the end of the connection."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._receive()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _receive(self) -> bytes:
        received = self.socket.recv(1 << 16)
        if not received:
            raise EOFError("the server ended the connection")
        return received


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Build a client's frame, right or wrong (RFC 6455, 5.2)."""
    first = (fin << 7) | (rsv << 4) | opcode
    if len(payload) < 126:
        head = struct.pack(">BB", first, masked << 7 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack(">BBH", first, masked << 7 | 126, len(payload))
    else:
        head = struct.pack(">BBQ", first, masked << 7 | 127, len(payload))
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))

"""The least of WebSocket that a load needs: the handshake, and a client's frames (RFC 6455).

The mask of all frames is zero, which is a mask like any other to the server, and spares the load a copy.
"""

import struct

TEXT, BINARY = 0x81, 0x82


def handshake(port: int, path: str, head: str = "") -> bytes:
    """Return the request that asks for a WebSocket; `head` is more lines of it, each with its end."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{head}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole message in one frame."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BBI", opcode, 0x80 | size, 0) + payload
    return struct.pack(">BBHI", opcode, 0x80 | 126, size, 0) + payload

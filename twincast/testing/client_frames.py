"""Splits what a client sends at the ends of its WebSocket frames, so that a proxy can send a message twice."""

from typing import Literal

HEAD_END = b"\r\n\r\n"
HEAD_MAX_BYTES = 64 * 1024  # a longer head is not that of a WebSocket
WHOLE_TEXT = 0x81  # FIN and text, not compressed


class ClientFrames:
    """The bytes of one client, in order.

    Three phases: *head*, until the empty line behind the HTTP head; then *frames*, if the head asks for a WebSocket; or
    *opaque*, if it does not or is too long: the bytes pass as they are.
    """

    def __init__(self) -> None:
        self._phase: Literal["head", "frames", "opaque"] = "head"
        self._head = b""
        self._waiting = b""

    def split(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """Return the parts that can be passed on, each with whether it is a whole text message.

        The parts of all calls, joined, are the bytes that arrived; a frame is held back until it is complete.
        """
        if self._phase == "head":
            return self._split_head(chunk)
        if self._phase == "opaque":
            return [(chunk, False)]
        self._waiting += chunk
        parts = []
        while size := self._frame_bytes():
            frame, self._waiting = self._waiting[:size], self._waiting[size:]
            parts.append((frame, frame[0] == WHOLE_TEXT))
        return parts

    def rest(self) -> bytes:
        """Return the incomplete frame at the end of a connection."""
        rest, self._waiting = self._waiting, b""
        return rest

    def _split_head(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        self._head += chunk
        head, end, frames = self._head.partition(HEAD_END)
        if not end:
            if len(head) > HEAD_MAX_BYTES:
                self._phase = "opaque"
            return [(chunk, False)]
        self._head = b""
        if b"\r\nupgrade: websocket" not in head.lower():
            self._phase = "opaque"
            return [(chunk, False)]
        self._phase = "frames"
        return [(chunk[: len(chunk) - len(frames)], False), *self.split(frames)]

    def _frame_bytes(self) -> int:
        """Return the size of the frame that comes first; 0 if it is not complete (RFC 6455, 5.2)."""
        data = self._waiting
        if len(data) < 2:
            return 0
        length, head = data[1] & 0x7F, 2
        if length == 126:
            length, head = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(data[2:10], "big"), 10
        size = head + (4 if data[1] & 0x80 else 0) + length
        return size if len(data) >= max(size, head) else 0

"""What a client sends, cut at the ends of its WebSocket frames, so that a network can say a message twice."""

from typing import Literal

HEAD_END = b"\r\n\r\n"
HEAD_MAX_BYTES = 64 * 1024  # who sends more before the first empty line speaks something else
WHOLE_TEXT = 0x81  # FIN and text, nothing compressed


class ClientFrames:
    """The bytes of one client, in order. A connection that does not begin with an upgrade passes as it comes."""

    def __init__(self) -> None:
        self._phase: Literal["head", "frames", "opaque"] = "head"
        self._head = b""
        self._waiting = b""

    def split(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """Return what can be passed on, and whether each part is a whole text message.

        The parts of all calls, joined, are what came in; a frame is kept back until it is complete.
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
        """Return what waits for the end of its frame; a connection that ends never completes it."""
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

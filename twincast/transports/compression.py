"""gzip for answers above some size, if the client accepts it (RFC 9110, 8.4.1 and 12.5.3)."""

import asyncio
import zlib

FROM_BYTES = 1024
"""A smaller answer fits into one packet anyway."""
IN_THREAD_BYTES = 16 * 1024
"""From this size on compressing takes longer than handing the data to a thread, which needs no interpreter lock."""
LEVEL = 3
"""For a state of many devices: a third of the time of the usual 6, and an eighth more bytes."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def is_asked_for(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header accepts gzip."""
    weights = {}
    for each in accept_encoding.lower().split(","):
        coding, _, parameter = each.partition(";")
        weights[coding.strip()] = parameter.replace(" ", "")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return weight.removeprefix("q=").strip("0.") != "" or not weight


class Gzip:
    """Compresses one answer, piece by piece."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    async def piece(self, data: bytes) -> bytes:
        """Compress a piece; the result may be empty, and come out with a later piece."""
        if len(data) < IN_THREAD_BYTES:
            return self._stream.compress(data)
        return await asyncio.to_thread(self._stream.compress, data)

    def end(self) -> bytes:
        """Return what is left."""
        return self._stream.flush()

    async def whole(self, data: bytes) -> bytes:
        """Compress an answer that is one piece."""
        return await self.piece(data) + self.end()

"""gzip for answers of some size, where it is asked for (RFC 9110, 8.4.1 and 12.5.3)."""

import asyncio
import zlib

FROM_BYTES = 1024
"""Less comes in one packet anyway."""
IN_THREAD_BYTES = 16 * 1024
"""From here on it takes longer than to hand it to a thread, which does not need the interpreter for it."""
LEVEL = 3
"""A third of the time of the usual 6, and an eighth more bytes, of a state of many devices."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def is_asked_for(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header takes gzip."""
    weights = {}
    for each in accept_encoding.lower().split(","):
        coding, _, parameter = each.partition(";")
        weights[coding.strip()] = parameter.replace(" ", "")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return weight.removeprefix("q=").strip("0.") != "" or not weight


class Gzip:
    """One answer as it is compressed, piece by piece."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    async def piece(self, data: bytes) -> bytes:
        """Compress a piece; what comes of it may be empty, and come with a later one."""
        if len(data) < IN_THREAD_BYTES:
            return self._stream.compress(data)
        return await asyncio.to_thread(self._stream.compress, data)

    def end(self) -> bytes:
        """Return what is left."""
        return self._stream.flush()

    async def whole(self, data: bytes) -> bytes:
        """Compress an answer that is one piece."""
        return await self.piece(data) + self.end()

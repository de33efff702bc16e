"""What one connection takes at the moment: whether it is read, and whether more may be written to it."""

import asyncio


class Flow:
    """Pauses the reading of a connection, and has writers wait while too much that was written is not sent."""

    __slots__ = ("_transport", "_writable", "is_reading_paused", "is_writing_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.is_reading_paused = False
        """Whether nothing is read now."""
        self._writable: asyncio.Event | None = None  # most connections never fill
        self.is_writing_paused = False
        """Whether a writer is to call `drain` first."""

    def pause_reading(self) -> None:
        """Read nothing more, until `resume_reading`."""
        if not self.is_reading_paused:
            self.is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.is_reading_paused:
            self.is_reading_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Let writers wait: see asyncio.Protocol."""
        self.is_writing_paused = True
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        """Let them go on, also when there is nobody to write to any more."""
        self.is_writing_paused = False
        if self._writable is not None:
            self._writable.set()

    async def drain(self) -> None:
        """Return when more may be written, or when the connection is lost."""
        if self.is_writing_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

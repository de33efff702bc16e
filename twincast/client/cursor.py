"""A file with the position up to which a program has finished, for its next process to resume there."""

import asyncio
import logging
import os
from contextlib import suppress

from twincast.client.event_queue import Mark
from twincast.client.file_lock import lock
from twincast.client.progress import Progress
from twincast.client.resumption import Resumption
from twincast.core.model import Position
from twincast.errors import CursorUnusable, ValidationFailed
from twincast.machine import OWNER_ALONE, sync_folder

WRITE_INTERVAL_S = 1.0
TEXT_MAX_BYTES = 4_096

logger = logging.getLogger("twincast.client")


class CursorFile:
    """A position in a file that only this process uses."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Lock the file, and read it if it is there.

        Raises:
            CursorUnusable: another program has it, or it cannot be used.
        """
        self._path = os.path.realpath(path)
        self._lock = lock(self._path, "cursor", CursorUnusable)
        try:
            self.position = self._read()
        except OSError as error:
            self.close()
            raise self._unusable(error) from None
        self.is_kept = asyncio.Event()
        """Set once there is a position in it, at which the next process resumes even if this one is killed."""
        if self.position is not None:
            self.is_kept.set()

    def write(self, position: Position) -> None:
        """Replace the position in the file, all or nothing.

        Raises:
            OSError: it cannot be written.
        """
        if position == self.position:
            return
        name = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(name)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{position}\n".encode())
            file.flush()
            os.fsync(descriptor)
        os.replace(name, self._path)
        self.position = position
        sync_folder(os.path.dirname(self._path))

    async def keep(self, progress: Progress, resumption: Resumption) -> None:
        """Write how far a program is, at most once a second, until cancelled.

        While the program starts, the file stays as it is: a watch that starts next may need what others have finished.
        """
        while True:
            await progress.changed.wait()
            await asyncio.sleep(resumption.starting_s)
            progress.changed.clear()
            mark = progress.mark
            if mark is None:
                continue
            writing = asyncio.ensure_future(asyncio.to_thread(self._note, mark))
            try:
                await asyncio.shield(writing)
            finally:
                await asyncio.wait([writing])  # so that the write at the end comes behind this one
            self.is_kept.set()
            await asyncio.sleep(WRITE_INTERVAL_S)

    def note(self, progress: Progress) -> None:
        """Write how far a program is, now."""
        self._note(progress.mark)

    def _note(self, mark: Mark | None) -> None:
        if mark is None:
            return
        try:
            self.write(mark.position)
        except OSError as error:
            logger.warning("the cursor could not be written: %s", error)

    def close(self) -> None:
        """Unlock it."""
        self._lock.release()

    def _read(self) -> Position | None:
        try:
            with open(self._path, "rb") as file:
                text = file.read(TEXT_MAX_BYTES)
        except FileNotFoundError:
            return None
        try:
            if not text.endswith(b"\n"):
                raise ValidationFailed("its end is missing")
            return Position.parse(text.decode().strip())
        except (ValidationFailed, UnicodeDecodeError):
            logger.warning(
                "the cursor %s is damaged, or another kind of file: the watches start from now on", self._path
            )
            return None

    def _unusable(self, error: OSError) -> CursorUnusable:
        return CursorUnusable(f"the cursor {self._path} cannot be used: {error.strerror or error}")

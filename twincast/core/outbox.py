"""What one client that does not keep up has not taken yet: bounded, and conflating."""

from collections import deque
from collections.abc import Mapping

from twincast.core.cast import Cast
from twincast.core.model import Control, Twin
from twincast.core.protocol import encode_merged
from twincast.errors import FellBehind

_SLOT_BYTES = 64
"""What one waiting device or message costs beside its text: a slot of a dict or a deque, measured and rounded up."""


class Outbox:
    """The debt to one client: per device the newest change only, commands and answers each.

    A waiting device is no more than a count; its value is looked up in the state when the client takes it. So a
    client that stopped reading costs some bytes per device, not per change.
    """

    __slots__ = ("_changes", "_max_bytes", "_messages", "_messages_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changes: dict[str, int] = {}
        self._messages: deque[tuple[int, bytes]] = deque()
        self._messages_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._changes or self._messages)

    @property
    def size_bytes(self) -> int:
        """What is held for the client at the moment."""
        return self._messages_bytes + _SLOT_BYTES * (len(self._changes) + len(self._messages))

    def add(self, cast: Cast, seq: int) -> None:
        """Owe the client one more cast; `seq` is the state's position, where an answer without entries belongs.

        Raises:
            FellBehind: the debt passed its bound. Nothing can be merged any more: the client is to come back.
        """
        changes = self._changes
        if not cast.entries:
            for message in cast.messages:
                self._keep(seq, message)
        for entry, message in zip(cast.entries, cast.messages, strict=False):
            if isinstance(entry, Control):
                self._keep(entry.seq, message)
            else:
                changes[entry.device_id] = changes.get(entry.device_id, 0) + 1
        if self.size_bytes > self._max_bytes:
            raise FellBehind(f"more than {self._max_bytes} bytes were waiting for this client; reconnect to go on")

    def take(self, twins: Mapping[str, Twin], max_bytes: int) -> list[bytes]:
        """Pay the oldest part of the debt, in order of seq: about `max_bytes`, at least one message.

        `twins` is the state with every cast applied that was added.
        """
        waiting = sorted((twins[device_id].seq, device_id) for device_id in self._changes)
        taken: list[bytes] = []
        taken_bytes = 0
        for seq, device_id in waiting:
            while self._messages and self._messages[0][0] < seq and taken_bytes < max_bytes:
                taken.append(self._pop())
                taken_bytes += len(taken[-1])
            if taken_bytes >= max_bytes:
                return taken
            taken.append(encode_merged(device_id, twins[device_id], self._changes.pop(device_id)))
            taken_bytes += len(taken[-1])
        while self._messages and taken_bytes < max_bytes:
            taken.append(self._pop())
            taken_bytes += len(taken[-1])
        return taken

    def _keep(self, seq: int, message: bytes) -> None:
        self._messages.append((seq, message))
        self._messages_bytes += len(message)

    def _pop(self) -> bytes:
        message = self._messages.popleft()[1]
        self._messages_bytes -= len(message)
        return message

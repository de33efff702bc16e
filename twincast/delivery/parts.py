"""The state in parts, each encoded when it is taken, so that a slow client keeps none of it in memory."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET

from twincast.core.model import Twin
from twincast.core.state import State
from twincast.wire.messages import encode

_TWIN_BYTES = len('{"value":,"updated_at_utc":"","seq":,"source":"application"}:,') + len(
    "2026-11-23T16:24:00.123456+00:00"
)
"""How long a twin's text is beside its name, its value and the digits of its seq, with the longest source."""
_CLAIM_BYTES = len(',"measured_at_utc":"2026-11-23T16:24:00.123456+00:00","clock":"off"')


class Part(NamedTuple):
    """The twins of some devices, and where the next part begins."""

    text: bytes
    """A JSON object: the twins by device."""
    end: int
    is_last: bool
    newer: dict[str, int]
    """The devices whose twin is newer than the snapshot's `seq`, and the seq of that twin."""


class StateParts:
    """The state as of `seq`, in parts.

    A part that is taken late has its twins as they are then, for the earlier ones are not kept. So a stream that goes
    on behind `seq` must leave out the entries that `newer` says are in a part; then no device goes back in time.
    """

    def __init__(self, state: State, names: Sequence[str], *, max_devices: int, max_bytes: int) -> None:
        """Cut the state of some devices into parts; nothing is encoded yet.

        Args:
            state: where the twins are; it goes on changing.
            names: the devices; the sequence must not change.
            max_devices: how many devices a part may have; 0 for no such bound.
            max_bytes: how long the text of a part may be. One twin is never divided.
        """
        self.seq = state.seq
        self.names = names
        self._state = state
        self._max_devices = max_devices or len(names)
        self._max_bytes = max_bytes

    def part(self, start: int) -> Part:
        """Encode the part that begins with the device at `start`, as the state is now."""
        twins, end = self._choose(start)
        newer = {}
        if self._state.seq > self.seq:
            newer = {name: twin.seq for name, twin in twins.items() if twin.seq > self.seq}
        return Part(encode(twins), end, end >= len(self.names), newer)

    def _choose(self, start: int) -> tuple[dict[str, Twin], int]:
        known = self._state.twins
        chosen: dict[str, Twin] = {}
        left_bytes = self._max_bytes
        twin_bytes = _TWIN_BYTES + len(str(self._state.seq))
        end = min(len(self.names), start + self._max_devices)
        for at in range(start, end):
            name = self.names[at]
            twin = known.get(name)
            if twin is None:
                continue  # it was deleted since
            left_bytes -= twin_bytes + len(encode(name)) + memoryview(twin.value).nbytes
            if twin.measured_at_utc is not UNSET:
                left_bytes -= _CLAIM_BYTES
            if left_bytes < 0 and chosen:
                return chosen, at
            chosen[name] = twin
        return chosen, end

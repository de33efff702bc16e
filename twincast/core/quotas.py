"""How much state there may be: of all together and of one identity, counted with what still waits to be stored.

A reading far from every bound costs one comparison. Near a bound, or if a device is to be deleted, this module works
out what the state will be once all that waits is stored; it looks at each entry once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from twincast.core.batch import ENTRY_BYTES, Batch
from twincast.core.lateness import horizon_in
from twincast.core.model import DataUpdate, Entry
from twincast.core.state import DEVICE_BYTES, State
from twincast.errors import StateFull

AT_EASE_MAX = 100_000
"""At most so many identities are remembered as far from their bound; beyond that all are looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Bounds of the state. A device counts the bytes of its value, and 512 more for its name and all else."""

    devices_max: int = 1_000_000
    state_max_bytes: int = 1 << 30
    identity_state_max_bytes: int = 256 << 20


class _Held(NamedTuple):
    """What a device takes, and in whose share: in none, if it was written without a login or before this start."""

    size_bytes: int
    identity: str


_NOTHING = _Held(0, "")


def _left_by(entry: Entry, identity: str) -> _Held:
    """Return what a device takes after an entry that changes its twin."""
    return _Held(DEVICE_BYTES + len(entry.value), identity) if isinstance(entry, DataUpdate) else _NOTHING


class _Outlook:
    """What one batch will change, as far as its entries were looked at."""

    __slots__ = ("devices", "entries_seen", "held", "size_bytes", "submissions_seen", "used")

    def __init__(self) -> None:
        self.held: dict[str, _Held] = {}
        self.devices = 0
        self.size_bytes = 0
        self.used: Counter[str] = Counter()
        self.submissions_seen = self.entries_seen = 0

    def take(self, device_id: str, before: _Held, after: _Held) -> None:
        self.held[device_id] = after
        self.devices += bool(after.size_bytes) - bool(before.size_bytes)
        self.size_bytes += after.size_bytes - before.size_bytes
        self.used[before.identity] -= before.size_bytes
        self.used[after.identity] += after.size_bytes


class Account:
    """How much of the state each identity holds, and what may be added.

    The log does not say who sent a reading. So after a start no device is in anyone's share, and each goes into the
    share of the identity that writes it next. The total is always known.
    """

    def __init__(self, state: State, quotas: Quotas) -> None:
        self._state = state
        self._quotas = quotas
        self._shares: dict[str, _Held] = {}
        self._used: Counter[str] = Counter()
        self._outlooks: dict[Batch, _Outlook] = {}
        self._has_shares = False  # from the first submission with an identity on
        self.at_ease: set[str] = {""}
        """Identities whose submissions need no look while at most `free_bytes` wait."""

    def free_bytes(self, waiting_bytes: int) -> int:
        """Return the size up to which a batch needs no look, if `waiting_bytes` wait before it.

        The size of a batch counts 256 bytes for each entry, half of what a new device takes. So the state grows by no
        more than twice that size.
        """
        quotas, state = self._quotas, self._state
        return (
            min(
                (quotas.state_max_bytes - state.size_bytes) // 2,
                (quotas.devices_max - len(state.twins)) * ENTRY_BYTES,
                quotas.identity_state_max_bytes // 4,  # of an identity at ease half is used at most
            )
            - waiting_bytes
            - ENTRY_BYTES
        )

    def knows(self, device_id: str, waiting: Sequence[Batch]) -> bool:
        """Whether a device will exist once all batches are stored, the oldest first."""
        self._look_at(waiting)
        return self._after(device_id, waiting).size_bytes > 0

    def refusal(
        self, entries: Sequence[Entry], identity: str, waiting: Sequence[Batch], counted_bytes: int
    ) -> StateFull | None:
        """Return why entries cannot be taken behind the batches that wait; None if they can.

        A device that does not grow is always taken, so that a full state stays up to date; so is a reading that is
        going to be late, which changes no twin: history grows while the state is full.

        Args:
            entries: all or none of them are taken.
            identity: in whose share they will be; empty without a login.
            waiting: the batches, oldest first.
            counted_bytes: the size of all that waits and of the entries, as a batch counts it.
        """
        self._has_shares |= bool(identity)
        if self._is_far(counted_bytes, identity):
            self._judge(identity)
            return None
        self._look_at(waiting)
        grown = _Outlook()
        for entry in entries:
            if isinstance(entry, DataUpdate):
                if entry.measured_at_utc is not UNSET and self._is_late(entry, entry.measured_at_utc, grown, waiting):
                    continue
                before = grown.held.get(entry.device_id) or self._after(entry.device_id, waiting)
                grown.take(entry.device_id, before, _left_by(entry, identity))
        outlooks = [grown, *(self._outlooks[batch] for batch in waiting)]
        quotas, state = self._quotas, self._state
        if grown.devices > 0 and len(state.twins) + sum(each.devices for each in outlooks) > quotas.devices_max:
            return StateFull(f"there may be {quotas.devices_max:,} devices; delete one, or raise TWINCAST_DEVICES_MAX")
        if grown.size_bytes > 0 and state.size_bytes + sum(o.size_bytes for o in outlooks) > quotas.state_max_bytes:
            return StateFull(
                f"the state of all devices may take {quotas.state_max_bytes:,} bytes; "
                "delete one, or raise TWINCAST_STATE_MAX_BYTES"
            )
        if identity and grown.used[identity] > 0:
            used = self._used[identity] + sum(each.used[identity] for each in outlooks)
            if used > quotas.identity_state_max_bytes:
                return StateFull(
                    f"the devices that {identity} wrote last may take {quotas.identity_state_max_bytes:,} bytes; "
                    "delete one, or raise TWINCAST_IDENTITY_STATE_MAX_BYTES"
                )
        return None

    def settle(self, batch: Batch) -> None:
        """Move the devices of a batch into the shares of its senders, once it is in the state."""
        self._outlooks.pop(batch, None)
        if not self._has_shares:
            return
        shares, used = self._shares, self._used
        touched: set[str] = set()
        start = 0
        for end, _, _, identity, _ in batch.submissions:
            for entry in batch.entries[start:end]:
                if not entry.changes_twin:
                    continue
                device_id = entry.subject
                before = shares.get(device_id)
                if identity and isinstance(entry, DataUpdate):
                    size_bytes = DEVICE_BYTES + len(entry.value)
                    if before == (size_bytes, identity):
                        continue  # as nearly always
                    shares[device_id] = _Held(size_bytes, identity)
                    used[identity] += size_bytes
                    touched.add(identity)
                elif before is not None:
                    del shares[device_id]
                if before is not None:
                    used[before.identity] -= before.size_bytes
                    touched.add(before.identity)
            start = end
        for identity in touched:
            self._judge(identity)

    def forget_outlooks(self) -> None:
        """Forget what was worked out for the batches that wait, because one before them is not stored as it was."""
        self._outlooks.clear()

    def _is_far(self, counted_bytes: int, identity: str) -> bool:
        quotas, state, most_bytes = self._quotas, self._state, 2 * counted_bytes
        return (
            state.size_bytes + most_bytes <= quotas.state_max_bytes
            and len(state.twins) + counted_bytes // ENTRY_BYTES <= quotas.devices_max
            and (not identity or self._used[identity] + most_bytes <= quotas.identity_state_max_bytes)
        )

    def _judge(self, identity: str) -> None:
        if self._used[identity] <= 0:
            del self._used[identity]
        if self._used[identity] > self._quotas.identity_state_max_bytes // 2:
            self.at_ease.discard(identity)
            return
        if len(self.at_ease) > AT_EASE_MAX:
            self.at_ease.clear()
            self.at_ease.add("")
        self.at_ease.add(identity)

    def _look_at(self, waiting: Sequence[Batch]) -> None:
        """Work out what each batch changes, from where the last look ended."""
        for place, batch in enumerate(waiting):
            outlook = self._outlooks.get(batch)
            if outlook is None:
                outlook = self._outlooks[batch] = _Outlook()
            older = waiting[:place]
            for end, _, _, identity, _ in batch.submissions[outlook.submissions_seen :]:
                for entry in batch.entries[outlook.entries_seen : end]:
                    if entry.changes_twin:
                        before = outlook.held.get(entry.subject) or self._after(entry.subject, older)
                        outlook.take(entry.subject, before, _left_by(entry, identity))
                outlook.entries_seen = end
            outlook.submissions_seen = len(batch.submissions)

    def _is_late(self, entry: DataUpdate, claim: str, grown: _Outlook, waiting: Sequence[Batch]) -> bool:
        """Whether a reading is late for certain: nothing comes before it that could change that."""
        if any(entry.device_id in each.held for each in (grown, *(self._outlooks[batch] for batch in waiting))):
            return False
        return claim < horizon_in(self._state.twins, self._state.deletions)(entry.device_id)

    def _after(self, device_id: str, batches: Sequence[Batch]) -> _Held:
        """Return what a device takes once these batches are stored; all of them were looked at."""
        for batch in reversed(batches):
            held = self._outlooks[batch].held.get(device_id)
            if held is not None:
                return held
        twin = self._state.twins.get(device_id)
        if twin is None:
            return _NOTHING
        share = self._shares.get(device_id)
        return _Held(DEVICE_BYTES + len(twin.value), share.identity if share else "")

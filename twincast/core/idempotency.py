"""Updates that carry a key are stored once, however often they come (compare draft-ietf-httpapi-idempotency-key)."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from twincast.core.model import Control, Deleted, Entry
from twincast.errors import KeyReused, TwincastError

KEYS_MAX = 100_000
"""How many keys are remembered: 25 MB in memory."""
WINDOW_ENTRIES = 1_000_000
"""How far back in the log a key counts: what a start reads in a fraction of a second."""

_BETWEEN = "\x1f"  # neither names nor keys nor JSON hold control characters
DIGEST_HEX = 32
"""128 bits of SHA-256: nobody finds two contents that have them in common."""

OnCommitted = Callable[[TwincastError | None, int], None]
"""What a submission calls in the end: with the error that kept it out, or None and its last seq."""


class IdempotencyRecord(NamedTuple):
    """That a key was stored: with which entries, and what was in them."""

    key: str
    first_seq: int
    last_seq: int
    digest: str


class IdempotencyKey(NamedTuple):
    """A submission's key, and whom to tell if it was stored before."""

    key: str
    digest: str
    again: Callable[[IdempotencyRecord], None]


class IdempotencyIndex:
    """The keys of the newest updates, stored and under way."""

    def __init__(self, records: Iterable[IdempotencyRecord]) -> None:
        """Begin with what the journal has, oldest first."""
        self._stored = {record.key: record for record in records}
        self._under_way: dict[str, tuple[str, list[tuple[IdempotencyKey, OnCommitted]]]] = {}

    def admit(self, key: IdempotencyKey, count: int, done: OnCommitted) -> OnCommitted | None:
        """Return what a new submission of `count` entries is to call in the end; None if it came before.

        One that came before is answered as the first one was: at once, or when that one is.

        Raises:
            KeyReused: the key came before, with other content.
        """
        stored = self._stored.get(key.key)
        if stored is not None:
            _compare(stored.digest, key.digest)
            key.again(stored)
            return None
        if key.key in self._under_way:
            digest, waiting = self._under_way[key.key]
            _compare(digest, key.digest)
            waiting.append((key, done))
            return None
        self._under_way[key.key] = (key.digest, [])

        def settle(error: TwincastError | None, last_seq: int) -> None:
            _, waiting = self._under_way.pop(key.key)
            record = IdempotencyRecord(key.key, last_seq - count + 1, last_seq, key.digest)
            if error is None:
                self._remember(record)
            done(error, last_seq)
            for again, done_again in waiting:
                if error is None:
                    again.again(record)
                else:
                    done_again(error, 0)

        return settle

    def _remember(self, record: IdempotencyRecord) -> None:
        stored = self._stored
        stored[record.key] = record
        oldest = stored[next(iter(stored))]
        while len(stored) > KEYS_MAX or oldest.last_seq <= record.last_seq - WINDOW_ENTRIES:
            del stored[oldest.key]
            oldest = stored[next(iter(stored))]


def key_of_update(entry: Entry, update_id: str, identity: str = "") -> str:
    """Return the key of a WebSocket message's `update_id`: it counts per device or target, and for one identity."""
    return _BETWEEN.join((*entry.topic, update_id, identity) if identity else (*entry.topic, update_id))


def key_of_request(idempotency_key: str, identity: str = "") -> str:
    """Return the key of a request's `Idempotency-Key`: it counts for all that one identity asks."""
    return _BETWEEN.join(("request", idempotency_key, identity) if identity else ("request", idempotency_key))


def digest_of(entries: Sequence[Entry]) -> str:
    """Return a digest of what entries say, without when and where, in hexadecimal."""
    whole = sha256()
    for entry in entries:
        command = entry.command if isinstance(entry, Control) else ""
        whole.update(_BETWEEN.join((*entry.topic, command, "")).encode())
        if not isinstance(entry, Deleted):
            whole.update(entry.args if isinstance(entry, Control) else entry.value)
        whole.update(_BETWEEN.encode())
    return whole.hexdigest()[:DIGEST_HEX]


def _compare(first: str, second: str) -> None:
    if first != second:
        raise KeyReused(
            "this key came before with other content; a retry repeats the same, a new update takes a new key"
        )

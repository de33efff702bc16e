"""Idempotency: a submission that carries a key is stored once, however often it comes.

Compare draft-ietf-httpapi-idempotency-key. What is stored is learned from the log alone, so that it makes no difference
who wrote it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from msgspec import Struct

from twincast.core.model import Entry
from twincast.errors import KeyReused, TwincastError

KEYS_MAX = 100_000
"""At most so many keys are remembered: 25 MB in memory."""
WINDOW_ENTRIES = 1_000_000
"""How far back in the log a key counts: what a start reads in a fraction of a second."""

_BETWEEN = "\x1f"  # neither names nor keys nor JSON hold control characters
DIGEST_HEX = 32
"""128 bits of SHA-256: no two contents that have them in common can be found."""

OnCommitted = Callable[[TwincastError | None, int], None]
"""The callback of a submission, called once: with None and its last seq, or with the error that kept it out."""


class IdempotencyRecord(Struct, frozen=True, array_like=True, gc=False):
    """That a key was stored: with which entries, and a digest of their content.

    Many are kept, so the garbage collector does not look at them. As JSON it is an array.
    """

    key: str
    first_seq: int
    last_seq: int
    digest: str


class IdempotencyKey(NamedTuple):
    """The key of a submission, and its callback for the case that the key is stored already."""

    key: str
    digest: str
    again: Callable[[IdempotencyRecord], None]


class PendingKey:
    """A key that is neither stored nor refused yet: pending from `admit` until the first call of one of the others.

    `settle` ends it with the commit of its first submission, or with the failure of that; `again` ends it if the
    journal finds that another writer has stored the key. Those who submit the same key meanwhile wait for the same
    answer. After that the index knows the key as stored, from the log, or not at all.
    """

    __slots__ = ("_count", "_done", "_first", "_forget", "_waiting", "key")

    def __init__(self, key: IdempotencyKey, count: int, done: OnCommitted, forget: Callable[[], object]) -> None:
        self._first = key
        self._done = done
        self._count = count
        self._forget = forget
        self._waiting: list[tuple[IdempotencyKey, OnCommitted]] = []
        self.key = key._replace(again=self.again)
        """The key to submit: its `again` answers all."""

    def wait(self, key: IdempotencyKey, done: OnCommitted) -> None:
        """Answer one that came again together with the first one."""
        self._waiting.append((key, done))

    def settle(self, error: TwincastError | None, last_seq: int) -> None:
        """See OnCommitted."""
        self._end()
        self._done(error, last_seq)
        if error is None:
            first_seq = last_seq - self._count + 1
            self._answer_waiting(IdempotencyRecord(self.key.key, first_seq, last_seq, self.key.digest))
        else:
            for _, done in self._waiting:
                done(error, 0)

    def again(self, record: IdempotencyRecord) -> None:
        """Answer the first submission, too, with what another writer stored."""
        self._end()
        self._first.again(record)
        self._answer_waiting(record)

    def _end(self) -> None:
        self._forget()
        self.key = self._first  # the bound method in it would leave a cycle for the garbage collector, a key each

    def _answer_waiting(self, record: IdempotencyRecord) -> None:
        for key, _ in self._waiting:
            key.again(record)


class KeyWindow:
    """The stored keys that count. One rule for all that ask, so that whatever was started anew answers the same.

    A key counts if its first entry is among the last WINDOW_ENTRIES of the log as of now, and it is among the newest
    KEYS_MAX keys.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[IdempotencyRecord] = ()) -> None:
        """Begin with what a journal has, oldest first."""
        self._records: dict[str, IdempotencyRecord] = {}
        self.learn(records)

    def get(self, key: str, head_seq: int) -> IdempotencyRecord | None:
        """Return the record of a key that counts, in a log whose newest entry is `head_seq`; None if it does not."""
        record = self._records.get(key)
        return None if record is None or record.first_seq <= head_seq - WINDOW_ENTRIES else record

    def counting(self, head_seq: int) -> list[IdempotencyRecord]:
        """Return all records that count, oldest first."""
        return [record for record in self._records.values() if record.first_seq > head_seq - WINDOW_ENTRIES]

    def learn(self, records: Iterable[IdempotencyRecord]) -> None:
        """Take the records that the log reports, in its order."""
        known = self._records
        for record in records:
            known.pop(record.key, None)  # a key that counted no more, and was stored again, stands last
            known[record.key] = record
            oldest = next(iter(known.values()))
            while len(known) > KEYS_MAX or oldest.first_seq <= record.last_seq - WINDOW_ENTRIES:
                del known[oldest.key]
                if not known:  # one that is longer than the window counts no more once it is stored
                    break
                oldest = next(iter(known.values()))


class IdempotencyIndex:
    """The keys of the newest entries of the log, and those that are pending."""

    def __init__(self, records: Iterable[IdempotencyRecord]) -> None:
        """Begin with what the journal has, oldest first."""
        self._stored = KeyWindow(records)
        self._pending: dict[str, PendingKey] = {}

    def admit(self, key: IdempotencyKey, count: int, done: OnCommitted, head_seq: int) -> PendingKey | None:
        """Return the pending key of a new submission of `count` entries; None if the key is stored or pending already.

        One that is stored is answered at once, and one that is pending with the first submission.

        Args:
            key: the key.
            count: how many entries it stands for.
            done: the callback of the submission.
            head_seq: the newest entry of the log.

        Raises:
            KeyReused: the key came before, with other content.
        """
        stored = self._stored.get(key.key, head_seq)
        if stored is not None:
            check_same(stored.digest, key.digest)
            key.again(stored)
            return None
        pending = self._pending.get(key.key)
        if pending is not None:
            check_same(pending.key.digest, key.digest)
            pending.wait(key, done)
            return None
        pending = PendingKey(key, count, done, partial(self._pending.pop, key.key))
        self._pending[key.key] = pending
        return pending

    def learn(self, records: Iterable[IdempotencyRecord]) -> None:
        """Take the records that the log reports, whoever wrote them, in its order."""
        self._stored.learn(records)


def key_of_update(entry: Entry, update_id: str, identity: str = "") -> str:
    """Return the key of a WebSocket message's `update_id`: its scope is one device or target, and one identity."""
    return _BETWEEN.join((*entry.topic, update_id, identity) if identity else (*entry.topic, update_id))


def key_of_request(idempotency_key: str, identity: str = "") -> str:
    """Return the key of a request's `Idempotency-Key`: its scope is all requests of one identity."""
    return _BETWEEN.join(("request", idempotency_key, identity) if identity else ("request", idempotency_key))


def digest_of(entries: Sequence[Entry]) -> str:
    """Return a digest of what entries say, without when and where, in hexadecimal."""
    whole = sha256()
    for entry in entries:
        whole.update(_BETWEEN.join((*entry.topic, entry.detail, "")).encode())
        whole.update(entry.payload)
        whole.update(_BETWEEN.encode())
        if claim := entry.claim:
            whole.update(f"{claim}{_BETWEEN}".encode())
    return whole.hexdigest()[:DIGEST_HEX]


def check_same(first: str, second: str) -> None:
    """Check that two submissions under one key have the same digest.

    Raises:
        KeyReused: they have not.
    """
    if first != second:
        raise KeyReused(
            "this key came before with other content; a retry repeats the same, a new update takes a new key"
        )

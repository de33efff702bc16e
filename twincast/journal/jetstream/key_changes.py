"""Changes of the keys as messages of a shared log, and what they add up to: the same on every server.

One message is one change, on a subject of its own; it takes no seq of the log. `KeyTable` is the pure fold of such
messages. It knows no clock and no setting: a change happens when the stream says, and who sent it has checked it
against the table that it was sent after (`Nats-Expected-Last-Subject-Sequence`). These rules are part of the fold's
version, as those of `fold` are.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.core.rights import Rights
from twincast.errors import JournalUnusable, ValidationFailed
from twincast.wire.messages import encode

CODES_KEPT_S = 86_400
"""How long a code that was used or has expired stays, so that the error says so, and not that the code is wrong."""
_INTEGER_MAX = (1 << 63) - 1
"""SQLite holds no more, and every server's copy must take what its fold takes."""


class CarriedCode(Struct, frozen=True, forbid_unknown_fields=True):
    """A pairing code of a journal that was moved here."""

    pairing: Pairing
    who: str
    is_used: bool


class CarriedKeys(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Keys, codes and their audit trail of a journal that was moved here, with the times that they had there."""

    keys: list[Key] = []
    codes: list[CarriedCode] = []
    records: list[AuditRecord] = []
    """Of the keys; those of commands come with the commands."""


class KeyChange(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One change of the keys, and who made it. Its time is that of the message."""

    who: str
    address: str
    action: str
    """`keys add`, `keys revoke`, `keys clear`, `pair`, `paired` or `move`; empty for what leaves no record."""
    target: str
    detail: str
    server: str = ""
    """Of the server that made it; empty for a command."""
    clear: bool = False
    """Whether all keys are forgotten, before what follows."""
    revoke: str | None = None
    """The id of the key that ends."""
    code: Pairing | None = None
    """A code that may be exchanged for a key. Unused ones of the same name are no longer good."""
    used: str | None = None
    """The digest of the code that was exchanged for the key that is added."""
    add: Key | None = None
    """A key that is good from now on. Its times of making and revoking are the stream's, not these."""
    carried: CarriedKeys | None = None
    """What is moved here, before anything else happens to it."""

    def encoded(self) -> bytes:
        """Return it as a message."""
        return encode(self)


_decode = msgspec.json.Decoder(KeyChange).decode
_NOTHING = CarriedKeys()


def decode_change(message: bytes) -> KeyChange:
    """Return the change that a message holds.

    Raises:
        JournalUnusable: it holds none that this version knows.
    """
    try:
        change = _decode(message)
        for grants in [each.grants for each in (change.add, change.code, *_carried(change)) if each is not None]:
            Rights.of(grants)
    except (msgspec.MsgspecError, ValueError, ValidationFailed) as error:
        raise JournalUnusable(
            f"a change of the keys in the shared log was written by a newer twincast; update this one ({error})"
        ) from None
    if not all(-_INTEGER_MAX <= number <= _INTEGER_MAX for number in _integers(change)):
        raise JournalUnusable("a change of the keys in the shared log holds a number that is none of twincast's")
    return change


def _carried(change: KeyChange) -> list[Key | Pairing]:
    if change.carried is None:
        return []
    return [*change.carried.keys, *(code.pairing for code in change.carried.codes)]


def _integers(change: KeyChange) -> Iterator[int]:
    for each in (change.add, change.code, *_carried(change)):
        if isinstance(each, Key) and each.expires_s is not None:
            yield each.expires_s
        if isinstance(each, Pairing):
            yield each.until_s
            yield each.lives_s or 0


class Code(NamedTuple):
    """A pairing code, as the table has it."""

    pairing: Pairing
    who: str
    """Who made it."""
    is_used: bool


class KeyRows(NamedTuple):
    """A table, as it is stored."""

    version: int
    keys: tuple[Key, ...]
    codes: tuple[Code, ...]


class Tables(Protocol):
    """What a change is checked against: a table in memory, or in a copy."""

    def key(self, key_id: str) -> Key | None:
        """Return the key with an id."""

    def has_digest(self, digest: str) -> bool:
        """Whether there is a key with a digest."""

    def codes(self) -> Iterable[Code]:
        """Return all codes, used and expired ones too."""


class Step(NamedTuple):
    """What a change does to the tables, in this order: the same in memory and in a copy."""

    clear: bool
    revoke: str | None
    """The id of a key."""
    forget: tuple[str, ...]
    """The digests of codes."""
    code: Code | None
    used: str | None
    """The digest of a code."""
    add: Key | None
    carried: CarriedKeys
    records: tuple[AuditRecord, ...]
    """What the audit trail says of it, oldest first."""


def step_of(change: KeyChange, at_utc: str, before: Tables) -> Step:
    """Return what a change does.

    Args:
        change: it.
        at_utc: its time.
        before: what it changes.

    Raises:
        JournalUnusable: it does not follow from what was before.
    """
    codes = {code.pairing.digest: code for code in before.codes()}
    if not all(_follows(change, before, codes)):
        raise JournalUnusable(
            "a change of the keys in the shared log contradicts those before it: another program wrote into the stream"
        )
    key = change.add
    return Step(
        clear=change.clear,
        revoke=change.revoke,
        forget=() if change.code is None else _forgotten(change.code, at_utc, codes),
        code=None if change.code is None else Code(change.code, change.who, is_used=False),
        used=change.used,
        add=None if key is None else replace(key, created_at_utc=at_utc, revoked_at_utc=None),
        carried=change.carried or _NOTHING,
        records=(*(change.carried or _NOTHING).records, *_record_of(change, at_utc)),
    )


def _record_of(change: KeyChange, at_utc: str) -> Iterator[AuditRecord]:
    if change.action:
        yield AuditRecord(
            at_utc, change.who, change.address, change.action, change.target, change.detail, server=change.server
        )


def _follows(change: KeyChange, before: Tables, codes: Mapping[str, Code]) -> Iterator[bool]:
    if change.revoke is not None:
        ended = before.key(change.revoke)
        yield not change.clear and ended is not None and ended.revoked_at_utc is None
    if change.add is not None and not change.clear:
        yield before.key(change.add.id) is None and not before.has_digest(change.add.digest)
    if change.code is not None:
        yield change.code.digest not in codes and change.used is None
    if change.used is not None:
        yield change.used in codes and not codes[change.used].is_used
    if change.carried is not None:
        keys, digests = change.carried.keys, [code.pairing.digest for code in change.carried.codes]
        yield not any(before.key(key.id) is not None or before.has_digest(key.digest) for key in keys)
        yield len({key.id for key in keys}) == len({key.digest for key in keys}) == len(keys)
        yield len({*digests}) == len(digests) and codes.keys().isdisjoint(digests)


def _forgotten(new: Pairing, at_utc: str, codes: Mapping[str, Code]) -> tuple[str, ...]:
    kept_from_s = int(datetime.fromisoformat(at_utc).timestamp()) - CODES_KEPT_S
    return tuple(
        digest
        for digest, (pairing, _, is_used) in codes.items()
        if pairing.until_s < kept_from_s or (pairing.name == new.name and not is_used)
    )


class KeyTable:
    """All keys that were ever added, and the codes that may become some: the fold of the changes so far."""

    def __init__(self) -> None:
        self.version = 0
        """The place in the stream of the last change; 0 before the first one."""
        self._keys: dict[str, Key] = {}
        self._digests: set[str] = set()
        self._codes: dict[str, Code] = {}
        self._keyring: Keyring | None = None

    @classmethod
    def of(cls, rows: KeyRows) -> "KeyTable":
        """Return the table that was stored."""
        table = cls()
        table.version = rows.version
        table._keys = {key.id: key for key in rows.keys}
        table._digests = {key.digest for key in rows.keys}
        table._codes = {code.pairing.digest: code for code in rows.codes}
        return table

    def rows(self) -> KeyRows:
        """Return it as it is stored: the same for equal tables, wherever their folds began."""
        codes = sorted(self._codes.values(), key=lambda code: code.pairing.digest)
        return KeyRows(self.version, tuple(self.keyring().keys), tuple(codes))

    def keyring(self) -> Keyring:
        """Return all keys, revoked ones too, by name."""
        if self._keyring is None:
            keys = sorted(self._keys.values(), key=lambda key: (key.name, key.created_at_utc, key.id))
            self._keyring = Keyring(self.version, tuple(keys))
        return self._keyring

    def key(self, key_id: str) -> Key | None:
        """Return the key with an id."""
        return self._keys.get(key_id)

    def has_digest(self, digest: str) -> bool:
        """Whether there is a key with a digest."""
        return digest in self._digests

    def code(self, digest: str) -> Code | None:
        """Return the code with a digest."""
        return self._codes.get(digest)

    def codes(self) -> Iterable[Code]:
        """Return all codes, used and expired ones too."""
        return self._codes.values()

    def apply(self, change: KeyChange, stream_seq: int, at_utc: str) -> tuple[AuditRecord, ...]:
        """Take the next change.

        Args:
            change: it.
            stream_seq: its place in the stream.
            at_utc: its time, which is the stream's.

        Returns:
            What the audit trail says of it, oldest first.

        Raises:
            JournalUnusable: it does not follow from what was before. Nothing of it is taken.
        """
        step = step_of(change, at_utc, self)
        if step.clear:
            self._keys.clear()
            self._digests.clear()
        if step.revoke is not None:
            self._keys[step.revoke] = replace(self._keys[step.revoke], revoked_at_utc=at_utc)
        for digest in step.forget:
            del self._codes[digest]
        if step.code is not None:
            self._codes[step.code.pairing.digest] = step.code
        if step.used is not None:
            self._codes[step.used] = self._codes[step.used]._replace(is_used=True)
        if step.add is not None:
            self._keys[step.add.id] = step.add
            self._digests.add(step.add.digest)
        for key in step.carried.keys:
            self._keys[key.id] = key
            self._digests.add(key.digest)
        for code in step.carried.codes:
            self._codes[code.pairing.digest] = Code(code.pairing, code.who, code.is_used)
        self.version, self._keyring = stream_seq, None
        return step.records

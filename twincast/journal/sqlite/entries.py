"""How each kind of entry lies in the columns of the log; the one place of the SQLite journal that knows the kinds.

The log has one table for all kinds: `device_id` has an entry's subject, `value` its payload, `command` its detail,
`measured_at_utc` its claim.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET, Raw

from twincast.core.batch import Batch
from twincast.core.lateness import clock_of
from twincast.core.model import Control, DataUpdate, Deleted, Entry, EntryKind, Erased, Late
from twincast.core.names import check_id
from twincast.core.times import read_time
from twincast.wire.messages import encode

LOG_COLUMNS = "seq, type, device_id, value, command, timestamp_utc, source, measured_at_utc"
Row = tuple[Any, ...]
"""Of these columns."""


class Columns(NamedTuple):
    """The columns of one kind: the names that its fields have as JSON, and how a row becomes an entry again."""

    kind: type[EntryKind]
    make: Callable[[Row, str], Entry]
    """Makes the entry of a row, as of an epoch."""
    subject: str | None
    """None: the column has the empty text."""
    payload: str | None = None
    """None: the column has `null`."""
    detail: str | None = None
    """None: the column has no value."""
    may_lack_detail: bool = False
    may_claim: bool = False
    """Whether it may claim when it was measured."""
    must_claim: bool = False


def _reading(row: Row, epoch: str) -> Entry:
    seq, _, device_id, value, _, at_utc, source, measured_at_utc = row
    reading = DataUpdate(device_id, Raw(value.encode()), at_utc, source, seq, epoch)
    if measured_at_utc is not None:
        reading.measured_at_utc = measured_at_utc
        reading.clock = clock_of(measured_at_utc, at_utc)
    return reading


def _late(row: Row, epoch: str) -> Entry:
    seq, _, device_id, value, _, at_utc, source, measured_at_utc = row
    return Late(device_id, Raw(value.encode()), at_utc, source, measured_at_utc, seq, epoch)


def _command(row: Row, epoch: str) -> Entry:
    seq, _, target, args, command, at_utc, source, _ = row
    return Control(target, command, Raw(args.encode()), at_utc, source, seq, epoch)


def _deletion(row: Row, epoch: str) -> Entry:
    seq, _, device_id, _, scope, at_utc, source, _ = row
    return Deleted(device_id, at_utc, source, seq, epoch, scope or UNSET)


def _erased(row: Row, epoch: str) -> Entry:
    seq, *_, at_utc, source, _ = row
    return Erased(at_utc, source, seq, epoch)


COLUMNS: dict[str, Columns] = {
    each.kind.kind: each
    for each in (
        Columns(DataUpdate, _reading, subject="device_id", payload="value", may_claim=True),
        Columns(Control, _command, subject="target", payload="args", detail="command"),
        Columns(Deleted, _deletion, subject="device_id", detail="scope", may_lack_detail=True),
        Columns(Late, _late, subject="device_id", payload="value", may_claim=True, must_claim=True),
        Columns(Erased, _erased, subject=None),
    )
}
"""By what stands in the column `type`."""


def entry_of(row: Row, epoch: str) -> Entry:
    """Return the entry of a row, as of an epoch."""
    return COLUMNS[row[1]].make(row, epoch)


def check_columns(kind: str, value: str, command: Any, measured_at_utc: Any) -> None:
    """Check that a row which another program wrote has the columns of its kind.

    Raises:
        ValueError: it has not, or there is no such kind.
        ValidationFailed: its command is no name, or its measured time none.
    """
    columns = COLUMNS.get(kind)
    if columns is None or columns.subject is None or (columns.detail is None and command is not None):
        raise ValueError(f"type is data_update, late or deleted, or control, with a command; not {kind[:40]!r}")
    if measured_at_utc is None:
        if columns.must_claim:
            raise ValueError(f"what is {kind} has a measured_at_utc")
    elif not columns.may_claim:
        raise ValueError(f"what is {kind} has no measured_at_utc")
    elif not isinstance(measured_at_utc, str) or read_time(measured_at_utc, "measured_at_utc") != measured_at_utc:
        raise ValueError("measured_at_utc is a text such as 2026-11-27T04:16:10.250000+00:00, of this very form")
    if columns.may_lack_detail:
        if command is not None:
            raise ValueError("a history is erased by the server: a deleted has no command")
    elif columns.detail is not None:
        check_id(command or "", columns.detail)
        if not value.startswith("{"):
            raise ValueError("a command's value is an object, its args")
    if columns.payload is None and value != "null":
        raise ValueError(f"what is {kind} has the value null")


_APPEND_READINGS = """
insert into log select ?1 + key, 'data_update', value ->> 0, value -> 1, null, ?3, ?4, null from jsonb_each(?2)
"""


_APPEND_ROWS = """
insert into log
select value ->> 0, value ->> 1, value ->> 2, value -> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
from jsonb_each(?)
"""
_NOTHING = Raw(b"null")


class Insertion(NamedTuple):
    """A statement that adds entries to the log, and what is bound to it."""

    sql: str
    bindings: tuple[object, ...]

    @property
    def is_of_readings(self) -> bool:
        """Whether it adds readings alone."""
        return self.sql is _APPEND_READINGS

    @property
    def text_chars(self) -> int:
        """How much text it adds, about."""
        return sum(len(each) for each in self.bindings if isinstance(each, str))


class Appending:
    """How batches are added to the log: in one statement each.

    SQLite takes the text apart itself, so that the interpreter's lock is not taken for each row.
    """

    def __init__(self) -> None:
        self._append_sql, self._append_claims_sql = append_sql(), append_sql(with_claims=True)

    def insertion(self, batch: Batch, texts: Sequence[bytes]) -> Insertion:
        """Return how a batch that has been placed is added.

        Readings of one time that came by one way, as most batches hold, are bound as pairs `[device, value]`. That is
        less work for SQLite than their events, in which it would look for each field.

        Args:
            batch: the batch.
            texts: its entries as JSON, as they go out.
        """
        if batch.has_claims:
            return Insertion(self._append_claims_sql, (batch.first_seq, f"[{b','.join(texts).decode()}]"))
        source, at_utc = batch.entries[0].source, batch.timestamp_utc
        pairs = [
            (entry.device_id, entry.value)
            for entry in batch.entries
            if isinstance(entry, DataUpdate) and entry.source == source
        ]
        if at_utc and len(pairs) == len(batch.entries):
            return insertion_of_readings(batch.first_seq, pairs, at_utc, source)
        return Insertion(self._append_sql, (batch.first_seq, f"[{b','.join(texts).decode()}]"))


def insertion_of_rows(entries: Iterable[Entry]) -> Insertion:
    """Return how entries that have their positions are added, of whatever times and kinds."""
    rows = [
        (
            entry.seq,
            entry.kind,
            entry.subject,
            _NOTHING if COLUMNS[entry.kind].payload is None else entry.payload,
            None if COLUMNS[entry.kind].detail is None else entry.detail or None,
            entry.timestamp_utc,
            entry.source,
            entry.claim or None,
        )
        for entry in entries
    ]
    return Insertion(_APPEND_ROWS, (encode(rows).decode(),))


def insertion_of_readings(
    first_seq: int, pairs: Iterable[tuple[str, Raw]], timestamp_utc: str, source: str
) -> Insertion:
    """Return how readings of one time and source, without claims, are added, from a position on.

    Args:
        first_seq: the position of the first.
        pairs: of each the device and the value.
        timestamp_utc: when they were stored.
        source: the way by which they came.
    """
    return Insertion(_APPEND_READINGS, (first_seq, encode(list(pairs)).decode(), timestamp_utc, source))


def append_sql(*, with_claims: bool = False) -> str:
    """Return the statement that appends a batch: ?1 is its first seq, ?2 its entries as a JSON array.

    Args:
        with_claims: whether some of the entries may claim when they were measured.
    """
    subject = _first_of((each.subject for each in COLUMNS.values()), otherwise="''")
    payload = _first_of((each.payload for each in COLUMNS.values()), arrow="->", otherwise="'null'")
    detail = _first_of((each.detail for each in COLUMNS.values()), otherwise="null")
    claim = "value ->> 'measured_at_utc'" if with_claims else "null"
    return f"""
insert into log
select ?1 + key, value ->> 'type', {subject}, {payload}, {detail},
       value ->> 'timestamp_utc', value ->> 'source', {claim}
from jsonb_each(?2)
"""


def audit_sql() -> str:
    """Return the statement that records the origins of a batch's entries in the audit trail: ? is them as JSON."""
    actions = " ".join(
        f"when '{name}' then '{each.kind.audited_as}'" for name, each in COLUMNS.items() if each.kind.audited_as
    )
    return f"""
insert into audit (at_utc, who, address, action, target, detail, seq, server)
select timestamp_utc, origin.value ->> 1, origin.value ->> 2, case log.type {actions} end, device_id,
       coalesce(command, ''), seq, nullif(origin.value ->> 3, '')
from jsonb_each(?) as origin join log on seq = origin.value ->> 0
order by seq
"""


def _first_of(fields: Iterable[str | None], *, arrow: str = "->>", otherwise: str | None = None) -> str:
    """Return the SQL for whichever of some JSON fields an entry has."""
    found = [f"value {arrow} '{field}'" for field in dict.fromkeys(fields) if field is not None]
    if otherwise is not None:
        found.append(otherwise)
    return f"coalesce({', '.join(found)})"

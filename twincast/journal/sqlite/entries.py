"""How each kind of entry lies in the columns of the log; the one place of the SQLite journal that knows the kinds.

The log has one table for all kinds: `device_id` has an entry's subject, `value` its payload, `command` its detail.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Deleted, Entry, EntryKind
from twincast.core.names import check_id

LOG_COLUMNS = "seq, type, device_id, value, command, timestamp_utc, source"
Row = tuple[Any, ...]
"""Of these columns."""


class Columns(NamedTuple):
    """The columns of one kind: the names that its fields have as JSON, and how a row becomes an entry again."""

    kind: type[EntryKind]
    make: Callable[[Row, str], Entry]
    """Makes the entry of a row, as of an epoch."""
    subject: str
    payload: str | None = None
    """None: the column has `null`."""
    detail: str | None = None
    """None: the column has no value."""


def _reading(row: Row, epoch: str) -> Entry:
    seq, _, device_id, value, _, at_utc, source = row
    return DataUpdate(device_id, Raw(value.encode()), at_utc, source, seq, epoch)


def _command(row: Row, epoch: str) -> Entry:
    seq, _, target, args, command, at_utc, source = row
    return Control(target, command, Raw(args.encode()), at_utc, source, seq, epoch)


def _deletion(row: Row, epoch: str) -> Entry:
    seq, _, device_id, _, _, at_utc, source = row
    return Deleted(device_id, at_utc, source, seq, epoch)


COLUMNS: dict[str, Columns] = {
    each.kind.kind: each
    for each in (
        Columns(DataUpdate, _reading, subject="device_id", payload="value"),
        Columns(Control, _command, subject="target", payload="args", detail="command"),
        Columns(Deleted, _deletion, subject="device_id"),
    )
}
"""By what stands in the column `type`."""


def entry_of(row: Row, epoch: str) -> Entry:
    """Return the entry of a row, as of an epoch."""
    return COLUMNS[row[1]].make(row, epoch)


def check_columns(kind: str, value: str, command: Any) -> None:
    """Check that a row which another program wrote has the columns of its kind.

    Raises:
        ValueError: it has not, or there is no such kind.
        ValidationFailed: its command is no name.
    """
    columns = COLUMNS.get(kind)
    if columns is None or (columns.detail is None and command is not None):
        raise ValueError(f"type is data_update or deleted, or control, with a command; not {kind[:40]!r}")
    if columns.detail is not None:
        check_id(command or "", columns.detail)
        if not value.startswith("{"):
            raise ValueError("a command's value is an object, its args")
    if columns.payload is None and value != "null":
        raise ValueError(f"what is {kind} has the value null")


def append_sql() -> str:
    """Return the statement that appends a batch: ?1 is its first seq, ?2 its entries as a JSON array.

    One statement a batch: SQLite takes the text apart itself, so that the interpreter's lock is not taken for each row.
    """
    subject = _first_of(each.subject for each in COLUMNS.values())
    payload = _first_of((each.payload for each in COLUMNS.values()), arrow="->", otherwise="'null'")
    detail = _first_of((each.detail for each in COLUMNS.values()), otherwise="null")
    return f"""
insert into log
select ?1 + key, value ->> 'type', {subject}, {payload}, {detail}, value ->> 'timestamp_utc', value ->> 'source'
from jsonb_each(?2)
"""


def audit_sql() -> str:
    """Return the statement that records the origins of a batch's entries in the audit trail: ? is them as JSON."""
    actions = " ".join(
        f"when '{name}' then '{each.kind.audited_as}'" for name, each in COLUMNS.items() if each.kind.audited_as
    )
    return f"""
insert into audit (at_utc, who, address, action, target, detail, seq)
select timestamp_utc, origin.value ->> 1, origin.value ->> 2, case log.type {actions} end, device_id,
       coalesce(command, ''), seq
from jsonb_each(?) as origin join log on seq = origin.value ->> 0
order by seq
"""


def _first_of(fields: Iterable[str | None], *, arrow: str = "->>", otherwise: str | None = None) -> str:
    """Return the SQL for whichever of some JSON fields an entry has."""
    found = [f"value {arrow} '{field}'" for field in dict.fromkeys(fields) if field is not None]
    if otherwise is not None:
        found.append(otherwise)
    return f"coalesce({', '.join(found)})"

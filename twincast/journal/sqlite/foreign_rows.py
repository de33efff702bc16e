"""Rows that another program wrote into the log while the server ran: accepted as entries, or a reason to stop."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, get_args

import msgspec

from twincast.core.lateness import note
from twincast.core.model import Source
from twincast.core.names import check_id
from twincast.errors import JournalUnavailable, TwincastError
from twincast.journal.sqlite.entries import LOG_COLUMNS, check_columns, entry_of
from twincast.wire.values import check_value

FOREIGN_ROWS = f"select {LOG_COLUMNS} from log where seq > ? order by seq"
_SOURCES = get_args(Source)
_decode = msgspec.json.Decoder().decode


class Foreign(NamedTuple):
    """What another program wrote behind the server's newest entry."""

    seq: int
    """Of the last row."""
    newest: dict[str, str]
    """Before which time a reading of a device is late behind them, of the devices whose twins they change."""


def accept(rows: Iterable[tuple[Any, ...]], seq: int) -> Foreign:
    """Check the rows that follow the server's newest entry, and return what they bring.

    Clients receive them like any other entry, so they must be such as the server accepts itself. A reading in them is
    as late as its type says.

    Args:
        rows: what FOREIGN_ROWS selects.
        seq: the server's newest entry.

    Raises:
        JournalUnavailable: there is none, so the server's own are gone, or one is no entry; it says what to do.
    """
    last, newest = None, dict[str, str]()
    for last, row in enumerate(map(_Row._make, rows), seq + 1):
        try:
            _check(row, last)
        except (TwincastError, ValueError) as error:
            raise JournalUnavailable(
                f"another program wrote into the journal's log, and row {row.seq} is no entry: {error}. Nothing is"
                f" stored until it is gone: delete from log where seq >= {row.seq}"
            ) from None
        note(newest, entry_of(row, ""))
    if last is None:
        raise JournalUnavailable(
            f"another program deleted the newest entries of the journal's log, up to {seq}. Nothing is stored until the"
            " server is started again, from what is left, or from a backup"
        )
    return Foreign(last, newest)


class _Row(NamedTuple):
    seq: int
    type: Any
    device_id: Any
    value: Any
    command: Any
    timestamp_utc: Any
    source: Any
    measured_at_utc: Any


def _check(row: _Row, seq: int) -> None:
    """Raise a TwincastError or a ValueError unless a row is an entry such as the server stores."""
    if row.seq != seq:
        raise ValueError(f"the next seq is {seq}")
    if not all(isinstance(each, str) for each in (row.type, row.device_id, row.value, row.timestamp_utc, row.source)):
        raise ValueError("type, device_id, value, timestamp_utc and source are texts")
    if row.source not in _SOURCES:
        raise ValueError(f"source is {', '.join(_SOURCES)}, not {row.source[:40]!r}")
    check_id(row.device_id, "device_id")
    _check_json(row.value)
    check_columns(row.type, row.value, row.command, row.measured_at_utc)
    if datetime.fromisoformat(row.timestamp_utc).tzinfo is None:
        raise ValueError("timestamp_utc has no time zone")


def _check_json(text: str) -> None:
    if "\n" in text or "\r" in text:
        raise ValueError("value has line ends between its tokens, which event streams cannot carry")
    _decode(text)
    check_value(text.strip().encode())
